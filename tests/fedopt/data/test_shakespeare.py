"""Plays as a text file: speakers are clients, and a sample is the next character after those before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fedopt
from fedopt.data.dataset import Dataset
from fedopt.data.loading import load_dataset
from fedopt.data.settings import DataSettings
from fedopt.data.sources.shakespeare import speeches
from fedopt.errors import DataUnavailable, InvalidExperiment

PLAY = """ANN:
to be or not
to be

BOB:
What?

ANN:
that is the
question

A text between speeches

BOB:
Is it: indeed?
Yes.
"""


def play(folder: Path, text: str = PLAY) -> Path:
    file = folder / "play.txt"
    file.write_text(text)
    return file


def load(file: Path, **keys: Any) -> Dataset:
    return load_dataset(DataSettings(**{"name": "shakespeare", "path": file, "clients": 2, **keys}), 0)


def read(dataset: Dataset, x: torch.Tensor, y: torch.Tensor) -> list[tuple[str, str]]:
    """Samples and labels as text."""
    spelled = {"newline": "\n", "space": " "}
    alphabet = [spelled.get(name, name) for name in dataset.class_names]
    return [
        ("".join(alphabet[int(number)] for number in row), alphabet[label])
        for row, label in zip(x.tolist(), y.tolist(), strict=True)
    ]


def test_a_speaker_s_lines_come_one_below_the_other() -> None:
    assert speeches(PLAY) == {
        "ANN": "to be or not\nto be\nthat is the\nquestion",
        "BOB": "What?\nIs it: indeed?\nYes.",
    }


@pytest.mark.parametrize("stride", [1, 3])
def test_samples_are_those_of_a_plain_loop_over_the_speaker_s_text(stride: int, tmp_path: Path) -> None:
    dataset = load(play(tmp_path), length=4, stride=stride, test_share=0.3, clients=1)
    # 70% of Ann's 39 characters end within her third line.
    train, test = (
        [(text[at : at + 4], text[at + 4]) for at in range(0, len(text) - 4, stride)]
        for text in ("to be or not\nto be\nthat is the\n", "question")
    )
    assert read(dataset, dataset.x_train, dataset.y_train) == train
    assert read(dataset, dataset.x_test, dataset.y_test) == test
    assert len(dataset.class_names) == len(set(PLAY))  # of the whole file, also of speakers that are left out


def test_the_last_line_is_tested_however_long_it_is(tmp_path: Path) -> None:
    dataset = load(play(tmp_path), length=4, stride=1, test_share=0.2, clients=1)
    assert len(dataset.y_test) == len("question") - 4  # 80% of Ann's characters end within it


def test_speakers_are_clients_by_the_length_of_what_they_say(tmp_path: Path) -> None:
    text = "".join(f"{who}:\n" + "to be or not\n" * lines + "\n" for who, lines in (("A", 5), ("B", 9), ("C", 7)))
    dataset = load(play(tmp_path, text), length=5, stride=1, clients=2)
    assert dataset.client_names == ("B", "C")
    assert dataset.natural_clients is not None
    assert dataset.test_clients is not None
    # 7 of 9 lines hold 80%'s end, and 6 of 7; a speech ends without its last newline
    sizes = [len(part) for part in dataset.natural_clients]
    assert sizes == [8 * 13 - 5, 6 * 13 - 5]
    assert np.array_equal(np.concatenate(dataset.natural_clients), np.arange(sum(sizes)))
    assert np.bincount(dataset.test_clients).tolist() == [12 - 5, 12 - 5]
    assert DataSettings(name="shakespeare", path=tmp_path).partition.name == "natural"


@pytest.mark.parametrize(
    ("text", "keys", "complaint"),
    [
        (PLAY, {"clients": 3, "length": 2}, "has 2 speakers whose training and test lines are longer than data.length"),
        (PLAY, {}, "has 0 speakers .* = 80 characters, and 2 are asked for"),
        ("", {}, "has 0 speakers"),
        ("no speech\n\nat all", {}, "has 0 speakers"),
    ],
)
def test_too_few_speakers_are_refused(text: str, keys: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable, match=complaint) as caught:
        load(play(tmp_path, text), **keys)
    assert "\n" not in str(caught.value)


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\xff")
    for path in (tmp_path / "bytes", tmp_path / "absent", tmp_path):
        with pytest.raises(DataUnavailable, match="is no text file that can be read"):
            load(path)


def experiment(file: Path, **sections: dict[str, Any]) -> fedopt.Experiment:
    given: dict[str, dict[str, Any]] = {
        "data": {"name": "shakespeare", "path": file, "clients": 2, "length": 6, "stride": 1},
        "model": {"name": "gru", "embedding": 4, "hidden": 12, "layers": 1},
        "local": {"lr": 1.0, "clip": 5.0, "batch_size": 16},
        "run": {"rounds": 4, "participation": 1.0, "workers": 1, "eval_every": 4},
        "metrics": {"drift_every": 0, "clients_every": 0},
    }
    return fedopt.Experiment(**{name: {**keys, **sections.get(name, {})} for name, keys in given.items()})


@pytest.mark.parametrize("model", ["gru", "lstm"])
def test_a_recurrent_model_learns_a_text_that_repeats(model: str, tmp_path: Path) -> None:
    """Of "abcd" all are as frequent: without those before it, the next one is right in a fourth of cases."""
    file = play(tmp_path, "".join(f"{who}:\n{'abcd' * 80}\n{'abcd' * 10}\n\n" for who in ("A", "B")))
    learned = fedopt.run(experiment(file, model={"name": model}, local={"epochs": 2}), tmp_path / "run")
    assert learned.summary.final.score > 0.9


@pytest.mark.parametrize("model", [{"name": "gru"}, {"name": "lstm", "layers": 2, "dropout": 0.3}])
def test_lanes_change_no_bit_of_a_recurrent_model(model: dict[str, Any], tmp_path: Path) -> None:
    file = play(tmp_path, "".join(f"{who}:\n{'to be or ' * n}\nnot to be\n\n" for who, n in (("A", 6), ("B", 9))))
    runs = [
        fedopt.run(
            experiment(file, model=model, run={"rounds": 2, "lanes": lanes, "dtype": "float64"}),
            tmp_path / str(lanes),
        )
        for lanes in (1, 2)
    ]
    assert all(torch.equal(runs[0].weights[name], runs[1].weights[name]) for name in runs[0].weights)


def test_a_recurrent_model_refuses_what_are_no_characters(tmp_path: Path) -> None:
    with pytest.raises(InvalidExperiment, match=r"gru reads sequences of characters, the data have .* \(1, 8, 8\)"):
        fedopt.run(fedopt.Experiment(model={"name": "gru"}, run={"rounds": 1}), tmp_path / "images")
    synthetic = fedopt.Experiment(data={"name": "synthetic"}, model={"name": "lstm"}, run={"rounds": 1})
    with pytest.raises(InvalidExperiment, match=r"lstm reads the numbers of characters, .* the samples have others"):
        fedopt.run(synthetic, tmp_path / "features")
    with pytest.raises(InvalidExperiment, match=r"dropout.* is between recurrent layers, and there is one"):
        fedopt.Experiment(model={"name": "gru", "layers": 1, "dropout": 0.5})
