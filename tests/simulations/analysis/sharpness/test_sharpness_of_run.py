"""Sharpness at models and losses of a run, against dense Hessians from the run's files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

import fedopt
from fedopt.data.loading import load_dataset
from fedopt.data.partition import partition
from fedopt.errors import InvalidExperiment
from simulations.analysis.runs.cache import Cache
from simulations.analysis.runs.of_run import AnalyzedRun
from simulations.analysis.runs.points import Points
from simulations.analysis.sharpness.measures import Settings
from simulations.analysis.sharpness.of_run import Asked, sharpness_at
from simulations.commands.analyze_sharpness import sharpness


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sharpness") / "run"
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((150, 5)), generator.integers(0, 3, 150)
    np.savez(out.with_name("own.npz"), x_train=x[:120], y_train=y[:120], x_test=x[120:], y_test=y[120:])
    experiment = fedopt.Experiment(
        data={"name": "npz", "path": str(out.with_name("own.npz")), "clients": 4, "partition": "iid"},
        model={"name": "logistic"},
        local={"steps": 4},
        run={"rounds": 4, "keep_models": 2, "dtype": "float64"},
    )
    fedopt.run(experiment, out)
    return out


def dense(run: Path, weights: dict[str, Tensor], client: int | None) -> Tensor:
    """The Hessian of the mean cross-entropy of a linear model, from its file and from the data."""
    experiment = fedopt.load(run).experiment
    dataset = load_dataset(experiment.data, experiment.run.seed)
    rows = np.arange(len(dataset.y_train)) if client is None else partition(dataset, experiment.data, 0)[client]
    x, y = dataset.x_train[rows].double().flatten(1), dataset.y_train[rows]
    names = [name for name, _ in fedopt.load(run).model().named_parameters()]
    shapes = {name.rpartition(".")[2]: weights[name].shape for name in names}
    flat = torch.cat([weights[name].reshape(-1) for name in names])
    order = [name.rpartition(".")[2] for name in names]

    def loss(w: Tensor) -> Tensor:
        parts = dict(zip(order, torch.split(w, [shapes[kind].numel() for kind in order]), strict=True))
        return F.cross_entropy(x @ parts["weight"].view(shapes["weight"]).T + parts["bias"], y)

    hessian: Tensor = torch.func.hessian(loss)(flat)
    return hessian


@pytest.mark.parametrize("client", [None, 2])
def test_saved_rounds_have_the_spectra_of_their_dense_hessians(run: Path, client: int | None, tmp_path: Path) -> None:
    analyzed = AnalyzedRun.read(run)
    points = [Points(analyzed).at(name) for name in ("round:2", "round:4")]
    said: list[str] = []
    asked = Asked(100_000, client, Settings(eigenvalues=3))
    found = sharpness_at(analyzed, points, asked, Cache(tmp_path, False, said.append), said.append)
    for point, one in zip(points, found, strict=True):
        weights = load_file(run / "models" / f"round-{point.round:06d}.safetensors")
        expected = torch.linalg.eigvalsh(dense(run, weights, client)).flip(0)
        assert one.largest == pytest.approx(expected[:3].tolist(), rel=1e-8)
        assert one.trace == pytest.approx(expected.sum().item(), abs=6 * one.trace_error)
    assert len(said) == 3, "an estimate, and each point"
    again = sharpness_at(analyzed, points, asked, Cache(tmp_path, False, said.append), said.append)
    assert again == found
    assert [line.startswith(f"from {tmp_path}") for line in said[3:]] == [True, True]
    other = sharpness_at(
        analyzed, points[:1], Asked(20, client, asked.settings), Cache(tmp_path, False, said.append), said.append
    )
    assert other[0].loss != found[0].loss, "of other samples"


def test_a_clients_model_and_a_clients_loss(run: Path, tmp_path: Path) -> None:
    analyzed = AnalyzedRun.read(run)
    point = Points(analyzed).at("client:1")
    asked = Asked(100_000, 1, Settings(eigenvalues=2))
    (found,) = sharpness_at(analyzed, [point], asked, Cache(tmp_path, False, print), lambda line: None)
    weights = {name: tensor.double() for name, tensor in point.module.state_dict().items()}
    expected = torch.linalg.eigvalsh(dense(run, weights, 1)).flip(0)
    assert found.largest == pytest.approx(expected[:2].tolist(), rel=1e-8)


def test_the_command_draws_curves_over_the_rounds(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sharpness(run, rounds=True, samples=60, eigenvalues=1)
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0].strip() for line in printed[1:4]] == ["initial model", "round 2", "round 4"]
    with open(run / "analysis" / "sharpness-rounds.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["round"] for row in rows] == ["0", "2", "4"]
    numbers = json.loads((run / "analysis" / "sharpness-rounds.json").read_text())["numbers"]["points"]
    assert numbers["round:4"]["largest"][0] == float(rows[2]["largest eigenvalue"])
    sharpness(run, samples=60, eigenvalues=1)
    out, err = capsys.readouterr()
    assert err.count("; --again computes anew") == 1, "the final model is that of round 4"
    assert out.startswith(f"Sharpness of {run}\n  loss ")
    sharpness(run, at=["client:0", "client:0"], client=0, samples=60, eigenvalues=1)
    assert f"Sharpness of {run}, client 0, loss of client 0" in capsys.readouterr().out
    assert (run / "analysis" / "sharpness-at-client-0-client-0.svg").exists()
    sharpness(run, at=["final", "client:0"], samples=60, eigenvalues=1)
    assert "\n  client 0: loss " in capsys.readouterr().out
    assert (run / "analysis" / "sharpness-points.svg").exists()


def test_the_command_refuses_in_one_sentence(run: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    fedopt.run(fedopt.Experiment(model={"name": "logistic"}, run={"rounds": 1}), bare)
    with pytest.raises(
        InvalidExperiment, match=r"bare has no models of single rounds; run.keep_models = 10 keeps ever"
    ):
        sharpness(bare, rounds=True)
    with pytest.raises(
        InvalidExperiment, match=r"^--rounds takes all saved rounds; leave out --at, or name the rounds"
    ):
        sharpness(run, rounds=True, at=["final"])
    with pytest.raises(InvalidExperiment, match=r"its model has other parameters than that of"):
        sharpness(run, at=[str(bare)])
    with pytest.raises(InvalidExperiment, match=r"'rond:2' is no model of .*: did you mean round:2\?"):
        sharpness(run, at=["rond:2"])
