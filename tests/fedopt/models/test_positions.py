"""model.targets = "all": the next character at every position of a sample, against a plain loop and counts by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fedopt
from fedopt.data.batches import plan_batches
from fedopt.data.partition import partition
from fedopt.errors import InvalidExperiment
from fedopt.models.build import build_model
from fedopt.models.losses import loss_named
from fedopt.models.positions import OfPositions
from fedopt.runs.setup import set_up
from fedopt.seeding import Purpose, stream
from tests.fedopt.optimizers.references import relative_error

LENGTH = 6
TRAIN = {"A": "to be or not to be\n", "B": "what? is it: indeed?\nyes it is, to be\n"}
TEST = {"A": "that is it, or is", "B": "be or not, no?"}
PLAY = "".join(f"{who}:\n{TRAIN[who]}{TEST[who]}\n\n" for who in ("A", "B"))
ALPHABET = sorted(set(PLAY))
CLIENTS = ("B", "A")
"""The one who says more comes first."""


def windows(text: str) -> tuple[Tensor, Tensor]:
    """Samples and, for every character of them, the one after it."""
    numbers = [ALPHABET.index(character) for character in text]
    starts = range(len(numbers) - LENGTH)
    x, y = ([numbers[at + late : at + late + LENGTH] for at in starts] for late in (0, 1))
    return torch.tensor(x), torch.tensor(y)


def experiment(folder: Path, **sections: dict[str, Any]) -> fedopt.Experiment:
    file = folder / "play.txt"
    file.write_text(PLAY)
    given: dict[str, dict[str, Any]] = {
        "data": {"name": "shakespeare", "path": file, "clients": 2, "length": LENGTH, "stride": 1, "test_share": 0.4},
        "model": {"name": "gru", "embedding": 3, "hidden": 5, "layers": 1, "targets": "all"},
        "local": {"lr": 0.5, "batch_size": 4, "steps": 3},
        "run": {"rounds": 1, "participation": 1.0, "workers": 1, "dtype": "float64"},
        "metrics": {"drift_every": 0, "clients_every": 1},
    }
    return fedopt.Experiment(**{name: {**keys, **sections.get(name, {})} for name, keys in given.items()})


class Plain(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], layers: int) -> None:
        super().__init__()
        self.table = nn.Embedding(len(ALPHABET), 3)
        self.rnn = kind(3, 5, layers, batch_first=True)  # type: ignore[arg-type]
        self.out = nn.Linear(5, len(ALPHABET))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.out(state) for state in self.rnn(self.table(x))[0].unbind(1)], dim=1)


@pytest.mark.parametrize(("name", "kind", "layers"), [("gru", nn.GRU, 1), ("lstm", nn.LSTM, 2)])
def test_a_round_and_its_scores_are_those_of_a_plain_loop(
    name: str, kind: type[nn.RNNBase], layers: int, tmp_path: Path
) -> None:
    given = experiment(tmp_path, model={"name": name, "layers": layers})
    history = fedopt.run(given, tmp_path / "run")
    model = Plain(kind, layers).double()
    start = build_model(given.model, (LENGTH,), len(ALPHABET), 0).double().state_dict()
    samples = {who: windows(TRAIN[who]) for who in CLIENTS}
    everything = sum(len(x) for x, _ in samples.values())
    mean = {key: torch.zeros_like(value) for key, value in start.items()}
    for client, who in enumerate(CLIENTS):
        model.load_state_dict(start)
        x, y = samples[who]
        plan = plan_batches(len(x), given.local, stream(0, Purpose.BATCHES, 1, client), 3)
        for positions, count in zip(plan.positions, plan.counts.tolist(), strict=True):
            rows = torch.from_numpy(positions[:count].copy())
            model.zero_grad()
            torch.autograd.backward(F.cross_entropy(model(x[rows]).transpose(1, 2), y[rows]))
            with torch.no_grad():
                for p in model.parameters():
                    assert p.grad is not None
                    p.sub_(0.5 * p.grad)
        for key, value in model.state_dict().items():
            mean[key] += len(x) / everything * value
    assert all(relative_error(history.weights[key], value) < 1e-12 for key, value in mean.items())

    model.load_state_dict(mean)
    right, losses = np.zeros((2, len(ALPHABET))), np.zeros(2)
    seen, tested = np.zeros_like(right), {who: windows(TEST[who]) for who in CLIENTS}
    for client, (x, y) in enumerate(tested.values()):
        chosen = model(x).argmax(-1)
        losses[client] = F.cross_entropy(model(x).transpose(1, 2), y).item()
        for row, wanted in zip(chosen.tolist(), y.tolist(), strict=True):
            for guess, character in zip(row, wanted, strict=True):
                right[client, character] += guess == character
                seen[client, character] += 1
    final, record = history.summary.final, history.records[-1]
    assert seen.sum() == LENGTH * sum(len(x) for x, _ in tested.values())
    assert final.test_accuracy == pytest.approx(right.sum() / seen.sum(), rel=1e-12)
    sizes = np.array([len(x) for x, _ in tested.values()])
    assert final.test_loss == pytest.approx(losses @ sizes / sizes.sum(), rel=1e-12)
    assert record.classes is not None
    for found, r, s in zip(record.classes.accuracy, right.sum(0), seen.sum(0), strict=True):
        assert found == (pytest.approx(r / s, rel=1e-12) if s else None)
    assert record.clients is not None
    of_clients = right.sum(1) / seen.sum(1)
    assert record.clients.worst == pytest.approx(of_clients.min(), rel=1e-12)


def shouted(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss of one's own that is a mean already."""
    return ((outputs.softmax(-1) - F.one_hot(targets, outputs.shape[-1])) ** 2).sum(-1).mean()


@pytest.mark.parametrize("name", ["cross_entropy", "weighted", "nll_loss", "mse_loss", f"{__name__}:shouted"])
def test_the_loss_of_a_sample_is_the_mean_of_those_of_its_positions(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    outputs, targets = torch.randn(4, 5, 3, generator=generator).double(), torch.randint(3, (4, 5), generator=generator)
    weights = (1.0, 2.0, 0.5)
    base = loss_named("cross_entropy", 0.1, weights) if name == "weighted" else loss_named(name)
    loss = OfPositions(base)
    each = loss(outputs, targets, reduction="none")
    for sample in range(4):
        alone = [base(outputs[sample, t : t + 1], targets[sample, t : t + 1]) for t in range(5)]
        assert each[sample] == pytest.approx(sum(map(float, alone)) / 5, rel=1e-12)
    assert float(loss(outputs, targets)) == pytest.approx(float(each.mean()), rel=1e-12)


def test_data_and_partitions_are_those_of_the_last_character(tmp_path: Path) -> None:
    last, every = (
        set_up(experiment(tmp_path, data={"partition": "dirichlet", "alpha": 0.5}, model={"targets": targets}))
        for targets in ("last", "all")
    )
    assert last.data_sha256 == every.data_sha256
    assert last.targets.equal(every.targets[:, -1])
    assert last.dataset.y_train.equal(every.dataset.y_train)
    settings = experiment(tmp_path, data={"partition": "dirichlet", "alpha": 0.5}).data
    parts = [partition(one.dataset, settings, 0) for one in (last, every)]
    assert all(map(np.array_equal, *parts))


def test_a_character_that_is_inside_samples_alone_counts_as_learned(tmp_path: Path) -> None:
    notes = {targets: set_up(experiment(tmp_path, model={"targets": targets})).notes for targets in ("last", "all")}
    seen, tested = (
        {character for text in texts.values() for row in windows(text)[1].tolist() for character in row}
        for texts in (TRAIN, TEST)
    )
    spelled = ["newline" if ALPHABET[character] == "\n" else ALPHABET[character] for character in sorted(seen - tested)]
    assert notes["all"][0] == f"the test set has no sample of class {', '.join(spelled)}: nothing is measured there"
    assert notes["last"][0] != notes["all"][0]


def test_numbers_to_predict_are_no_characters() -> None:
    x = np.arange(40).reshape(10, 4) % 3
    data = fedopt.Data(x[:8], np.ones((8, 4)), x[8:], np.ones((2, 4)))
    given = fedopt.Experiment(data={"clients": 2, "partition": "iid"}, model={"name": "gru", "targets": "all"})
    with pytest.raises(InvalidExperiment, match=r'^model\.targets: "all" takes the next characters from the samples'):
        fedopt.run(given, data=data)


def test_arrays_of_one_s_own_are_texts_too(tmp_path: Path) -> None:
    """Samples are characters as numbers, and a label is the one after them."""
    x, y = windows(TRAIN["B"])
    data = fedopt.Data(x.numpy(), y[:, -1].numpy(), x[:5].numpy(), y[:5, -1].numpy(), class_names=ALPHABET)
    text = experiment(tmp_path)
    given = fedopt.Experiment(data={"clients": 2, "partition": "iid"}, model=text.model, local=text.local, run=text.run)
    history = fedopt.run(given, tmp_path / "own", data=data)
    model = history.model().double()
    right = (model(x[:5].double()).argmax(-1) == y[:5]).sum().item()
    assert history.summary.final.test_accuracy == pytest.approx(right / 30, rel=1e-12)
