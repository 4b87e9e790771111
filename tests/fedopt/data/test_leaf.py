"""LEAF's JSON files: images as lists of numbers, and text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

import fedopt
from fedopt.data.dataset import Dataset
from fedopt.data.evaluation_shares import owners_of_tests
from fedopt.data.loading import load_dataset
from fedopt.data.partition import partition
from fedopt.data.settings import DataSettings
from fedopt.data.sources.leaf import ALPHABET
from fedopt.errors import DataUnavailable

Users = dict[str, tuple[list[Any], list[Any]]]


def write(file: Path, users: Users) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    data = {user: {"x": x, "y": y} for user, (x, y) in users.items()}
    counts = [len(y) for _, y in users.values()]
    file.write_text(json.dumps({"users": list(users), "num_samples": counts, "user_data": data}))


def settings(path: Path, **keys: Any) -> DataSettings:
    return DataSettings(**{"name": "leaf", "path": path, "clients": 3, **keys})


def load(path: Path, **keys: Any) -> Dataset:
    return load_dataset(settings(path, **keys), seed=0)


def images(rng: np.random.Generator, users: dict[str, int]) -> Users:
    return {user: (rng.random((n, 784)).tolist(), rng.integers(0, 62, n).tolist()) for user, n in users.items()}


def test_femnist_has_its_users_as_clients(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first, second = images(rng, {"f0": 3, "f1": 5}), images(rng, {"e2": 4, "none": 0})
    tests = images(rng, {"f1": 2, "e2": 1})
    write(tmp_path / "train" / "all_data_0_train.json", first)
    write(tmp_path / "train" / "all_data_1_train.json", second)
    write(tmp_path / "test" / "all_data_0_test.json", tests)
    dataset = load(tmp_path, reshape=[1, 28, 28])
    assert dataset.sample_shape == (1, 28, 28)
    parts = partition(dataset, settings(tmp_path), 0)
    by_name = dict(zip(("e2", "f0", "f1"), parts, strict=True))  # in sorted order
    for user, (x, y) in {**first, "e2": second["e2"]}.items():
        assert np.allclose(dataset.x_train[by_name[user]].reshape(-1, 784).numpy(), x)
        assert dataset.y_train[by_name[user]].tolist() == y
    assert owners_of_tests(dataset, parts, 0).tolist() == [2, 2, 0]
    assert load(tmp_path, users=2).natural_clients is not None
    assert len(load(tmp_path, users=2).natural_clients or ()) == 2


def test_users_who_only_test_are_nobodys_test_set(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    write(tmp_path / "train" / "a.json", images(rng, {"a": 5, "b": 5, "c": 5}))
    write(tmp_path / "test" / "a.json", images(rng, {"x": 3, "y": 3}))
    dataset = load(tmp_path)
    assert dataset.test_clients is None
    assert len(dataset.y_test) == 6


SPEECH = {
    "ROMEO": "But soft! What light through yonder window breaks?",
    "JULIET": "O Romeo, Romeo! wherefore art thou?",
}


def shakespeare(length: int, speech: dict[str, str] = SPEECH) -> Users:
    return {
        who: (
            [text[place : place + length] for place in range(len(text) - length)],
            [text[place + length] for place in range(len(text) - length)],
        )
        for who, text in speech.items()
    }


def test_shakespeare_is_the_next_character(tmp_path: Path) -> None:
    write(tmp_path / "train" / "s.json", shakespeare(20))
    write(tmp_path / "test" / "s.json", shakespeare(20))
    dataset = load(tmp_path, clients=2)
    assert dataset.classes == 80  # as LEAF has it
    assert dataset.sample_shape == (20,)
    assert dataset.class_names[:3] == ("newline", "space", "!")
    names = [{"newline": "\n", "space": " "}.get(name, name) for name in dataset.class_names]
    parts = partition(dataset, settings(tmp_path, clients=2), 0)
    spoken = dataset.x_train[parts[1]].int()
    assert "".join(names[index] for index in spoken[0].tolist()) == SPEECH["ROMEO"][:20]
    assert "".join(names[label] for label in dataset.y_train[parts[1]].tolist()) == SPEECH["ROMEO"][20:]


class Characters(nn.Module):
    """Predicts a character from the embeddings of those before it."""

    def __init__(self, length: int, classes: int) -> None:
        super().__init__()
        self.table = nn.Embedding(classes, 8)
        self.out = nn.Linear(8 * length, classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.table(x.long()).flatten(1))
        return out


def characters(sample_shape: tuple[int, ...], classes: int) -> nn.Module:
    return Characters(sample_shape[0], classes)


def test_a_model_with_an_embedding_learns_text(tmp_path: Path) -> None:
    write(tmp_path / "data" / "train" / "s.json", shakespeare(6, dict.fromkeys(("A", "B"), "to be or not " * 8)))
    write(tmp_path / "data" / "test" / "s.json", shakespeare(6, dict.fromkeys(("A", "B"), "to be or not " * 2)))
    experiment = fedopt.Experiment(
        data={"name": "leaf", "path": tmp_path / "data", "clients": 2},
        model={"name": "tests.fedopt.data.test_leaf:characters"},
        local={"lr": 0.5, "epochs": 5},
        run={"rounds": 5, "participation": 1.0, "workers": 1},
    )
    assert fedopt.run(experiment, tmp_path / "run").summary.final.score > 0.95


@pytest.mark.parametrize(
    ("users", "keys", "complaint"),
    [
        ({"a": ([[1.0], [2.0]], [0])}, {}, "not have as many labels as samples of user a"),
        ({"a": ([[1.0], [1.0, 2.0]], [0, 1])}, {}, "user a has samples that are neither numbers nor text"),
        ({"a": ([[1.0]], [0]), "b": ([[1.0, 2.0]], [0])}, {}, "has samples of different lengths"),
        ({"a": ([[1.0]], [0.5])}, {}, "labels that are neither whole numbers nor single characters"),
        ({"a": ([[1.0, 2.0]], [0])}, {"reshape": [3]}, r"data\.reshape: \[3\] has 3 numbers, .* have 2"),
        ({"a": (["abc", "ab"], ["a", "b"])}, {}, "user a has texts of different lengths"),
        ({"a": (["ab", "a%"], ["a", "b"])}, {}, r"has the character '%', which is not in data\.alphabet"),
        ({"a": ([], [])}, {}, "no user in .* has a sample"),
    ],
)
def test_what_is_wrong_is_said(users: Users, keys: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    write(tmp_path / "train" / "a.json", users)
    with pytest.raises(DataUnavailable, match=complaint) as caught:
        load(tmp_path, validation=0.5, **keys)
    assert "\n" not in str(caught.value)


def test_files_in_another_format_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable, match=r"there is no \.json file in .*train"):
        load(tmp_path)
    write(tmp_path / "train" / "a.json", {"a": ([[1.0]], [0])})
    write(tmp_path / "train" / "b.json", {"a": ([[1.0]], [0])})
    with pytest.raises(DataUnavailable, match=r"user a is in .*b\.json and in a file before it"):
        load(tmp_path)
    for content, complaint in (("{", "is not JSON"), ("[1]", "is not in LEAF's format"), ("{}", "not in LEAF's")):
        (tmp_path / "train" / "b.json").write_text(content)
        with pytest.raises(DataUnavailable, match=complaint):
            load(tmp_path)


class Recurrent(nn.Module):
    """A smaller form of the model of McMahan et al. 2017: an embedding of 8, an LSTM, a layer of logits."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.table = nn.Embedding(classes, 8)
        self.rnn = nn.LSTM(8, 64, batch_first=True)
        self.out = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        hidden, _ = self.rnn(self.table(x.long()))
        out: Tensor = self.out(hidden[:, -1])
        return out


def recurrent(classes: int) -> nn.Module:
    return Recurrent(classes)


@pytest.mark.slow
def test_the_plays_of_shakespeare_are_learned_with_speakers_as_clients(shared_data: Path, tmp_path: Path) -> None:
    """The speakers who say most, in LEAF's format; an LSTM predicts better than the most frequent character."""
    plays = (shared_data / "shakespeare.txt").read_text()
    said: dict[str, str] = {}
    for block in plays.split("\n\n"):
        speaker, colon, lines = block.partition(":\n")
        if colon and "\n" not in speaker:
            said[speaker] = said.get(speaker, "") + lines.replace("\n", " ") + " "
    most = sorted(said, key=lambda who: -len(said[who]))[:10]
    known = {who: "".join(c for c in said[who] if c in ALPHABET)[:3000] for who in most}
    write(tmp_path / "data" / "train" / "s.json", shakespeare(20, {who: text[:2400] for who, text in known.items()}))
    write(tmp_path / "data" / "test" / "s.json", shakespeare(20, {who: text[2400:] for who, text in known.items()}))
    experiment = fedopt.Experiment(
        data={"name": "leaf", "path": tmp_path / "data", "clients": 10},
        model={"name": "tests.fedopt.data.test_leaf:recurrent"},
        local={"lr": 1.0, "epochs": 1, "clip": 5.0},
        run={"rounds": 10, "participation": 0.5, "eval_every": 10},
    )
    labels = load(tmp_path / "data", clients=10).y_test
    frequent = labels.bincount().max().item() / len(labels)
    assert fedopt.run(experiment, tmp_path / "run").summary.final.score > frequent + 0.05
