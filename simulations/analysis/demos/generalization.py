"""Training and test error: the gap on a line, labels that are noise, and small against large batches.

a line          w is fitted to n samples w_i of variance s^2 by the loss (w - w_i)^2, so that it is their mean:
                E (loss on new samples - loss on these) = 2 s^2 / n
random labels   a network fits labels that are drawn at random, and then tells nothing about the test set
                (Zhang, Bengio, Hardt, Recht, Vinyals 2017, arXiv:1611.03530)
batches         the same epochs with small and large batches (Keskar et al. 2017, arXiv:1609.04836): at one rate a
                large batch takes fewer steps; at a rate that grows with it, it follows the small one
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from fedopt.data.loading import load_dataset
from fedopt.data.own import Data
from fedopt.data.settings import DataSettings
from fedopt.experiment.experiment import Experiment
from fedopt.runs.stepping import rounds
from simulations.analysis.result import Result
from simulations.report.style import COLORS, DASHES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLES = 2, 4, 8, 16, 32, 64, 128
"""n on the line."""
REPEATS = 4000
"""Fits for each n."""


@dataclass(frozen=True)
class Curve:
    """Accuracy on the training and on the test set, and the training loss, after each epoch."""

    train: list[float]
    test: list[float]
    loss: list[float]


def demonstrate(epochs: int, seed: int) -> Result:
    gaps = line_gaps(seed)
    labels = {
        "true labels": trained(epochs, 32, 0.05, seed, momentum=0.9),
        "random labels": trained(epochs, 32, 0.05, seed, momentum=0.9, random_labels=True),
    }
    batches = {
        "batch 16, lr 0.05": trained(epochs // 2, 16, 0.05, seed),
        "batch 512, lr 0.05": trained(epochs // 2, 512, 0.05, seed),
        "batch 512, lr 1.6": trained(epochs // 2, 512, 1.6, seed),
    }
    findings = [f"a line: with {n} samples the gap is {gap:.4f}, {2 / 3 / n:.4f} in theory" for n, gap in gaps.items()][
        ::3
    ]
    findings += [
        f"{name}: {curve.train[-1]:.1%} of the training set and {curve.test[-1]:.1%} of the test set are right after "
        f"{len(curve.train)} epochs"
        for name, curve in (labels | batches).items()
    ]
    rows: list[Sequence[float | str]] = [("a line", "gap", n, gap) for n, gap in gaps.items()]
    rows += [
        (name, measure, epoch, value)
        for name, curve in (labels | batches).items()
        for measure, values in (("training", curve.train), ("test", curve.test), ("training loss", curve.loss))
        for epoch, value in enumerate(values, 1)
    ]
    return Result(
        "generalization",
        "Generalization: the gap between training and test",
        findings,
        {"epochs": epochs, "seed": seed, "data": "digits", "model": "mlp of 128 units"},
        ("curve", "measure", "x", "y"),
        rows,
        partial(_figure, gaps, labels, batches),
    )


def line_gaps(seed: int) -> dict[int, float]:
    """The mean gap for each number of samples that are uniform on [-1, 1], of variance 1/3."""
    rng = np.random.default_rng(seed)
    found: dict[int, float] = {}
    for n in SAMPLES:
        samples = rng.uniform(-1, 1, (REPEATS, n))
        w = samples.mean(1, keepdims=True)
        on_these = np.square(w - samples).mean(1)
        on_new = np.square(w[:, 0]) + 1 / 3  # the mean over all new samples
        found[n] = float(np.mean(on_new - on_these))
    return found


def trained(
    epochs: int, batch_size: int, lr: float, seed: int, *, momentum: float = 0.0, random_labels: bool = False
) -> Curve:
    """SGD on the digits, all of them at one client, so that a round is an epoch."""
    digits = load_dataset(DataSettings(), 0)
    y_train = digits.y_train
    if random_labels:
        y_train = torch.from_numpy(np.random.default_rng(seed).integers(10, size=len(y_train)))
    experiment = Experiment(
        data={"clients": 1, "partition": "iid"},
        model={"name": "mlp", "hidden": [128]},
        local={"lr": lr, "epochs": 1, "batch_size": batch_size, "momentum": momentum},
        run={"rounds": epochs, "participation": 1.0, "seed": seed},
        metrics={"drift": "off", "drift_every": 0, "clients_every": 0},
    )
    train, test, losses = list[float](), list[float](), list[float]()
    data = Data(digits.x_train, y_train, digits.x_test, digits.y_test)
    with tempfile.TemporaryDirectory() as folder, rounds(experiment, Path(folder) / "run", data=data) as steps:
        for record, model in steps:
            train.append(_accuracy(model, digits.x_train, y_train))
            test.append(float(record.test_accuracy or 0.0))
            losses.append(record.train_loss)
    return Curve(train, test, losses)


def _accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.inference_mode():
        return float((model(x).argmax(1) == y).double().mean())


def _figure(gaps: Mapping[int, float], labels: Mapping[str, Curve], batches: Mapping[str, Curve]) -> Figure:
    from simulations.report.shown import ShownFigure

    figure = ShownFigure(figsize=(10.2, 3.4), layout="constrained")
    line, random, batch = figure.subplots(1, 3)
    line.plot(list(gaps), [2 / 3 / n for n in gaps], color="black", linestyle="--", label="2 s²/n")
    line.plot(list(gaps), list(gaps.values()), color=COLORS[0], marker="o", linestyle="", label="measured")
    line.set_xscale("log")
    line.set_yscale("log")
    line.set_xlabel("samples")
    line.set_title("a line: test loss minus training loss", fontsize=9)
    for panel, curves, title in (
        (random, labels, "true and random labels: accuracy, %"),
        (batch, batches, "batches: accuracy, %"),
    ):
        for rank, (name, curve) in enumerate(curves.items()):
            for measure, values, dash in (("training", curve.train, 0), ("test", curve.test, 1)):
                epochs = range(1, len(values) + 1)
                look = {"color": COLORS[rank], "linestyle": DASHES[dash], "label": f"{name}: {measure}"}
                panel.plot(epochs, [100 * value for value in values], **look)
        panel.set_xlabel("epoch")
        panel.set_title(title, fontsize=9)
    for panel in (line, random, batch):
        panel.legend(fontsize=7, framealpha=0.8)
    return figure
