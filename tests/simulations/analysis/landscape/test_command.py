"""`fedopt analyze landscape` on real runs."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from typer.testing import CliRunner

import fedopt
from fedopt.errors import InvalidExperiment
from fedopt.vectors.layout import Layout
from simulations.analysis.runs.of_run import AnalyzedRun
from simulations.analysis.runs.points import Points
from simulations.commands.analyze_landscape import app
from tests.commands import fedopt as command

MODELS = "client-0-client-1-final"
"""A plane through models, in the names of files."""
SMALL = ["--points", "5", "--samples", "40"]


def experiment(**run: object) -> fedopt.Experiment:
    return fedopt.Experiment(
        data={"clients": 5, "alpha": 1.0},
        model={"name": "mlp", "hidden": [8]},
        run={"rounds": 4, "device": "cpu", "workers": 1, **run},
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a, which has kept its models, and b, with another seed."""
    folder = tmp_path_factory.mktemp("runs")
    fedopt.run(experiment(keep_models=1), folder / "a")
    fedopt.run(experiment(seed=1), folder / "b")
    return folder


def analyze(*arguments: str | Path) -> dict[str, dict[str, dict[str, object]]]:
    """What the command prints with --json."""
    done = command("analyze", "landscape", *arguments, *SMALL, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def losses_in(file: Path) -> dict[tuple[str, float, float], float]:
    with file.open() as stream:
        rows = list(csv.reader(stream))[1:]
    return {(of, float(first), float(second)): float(loss) for of, first, second, loss in rows}


def test_everything_of_a_run_is_drawn_at_once_and_read_from_the_cache_afterwards(runs: Path, tmp_path: Path) -> None:
    a, b = runs / "a", runs / "b"
    lines = ["--line", "initial,final", "--line", f"client:0,{b}"]
    planes = [
        "--plane",
        "random",
        "--plane",
        "client:0,client:1,final",
        "--plane",
        "random",
        "--trajectory",
        "--clients",
        "2",
    ]
    barriers = ["--barriers", "3", "--out", str(tmp_path)]
    done = command("analyze", "landscape", a, *lines, *planes, *barriers, *SMALL)
    assert done.returncode == 0, done.stderr
    assert "losses, " in done.stderr
    names = [
        "landscape-lines",
        *(f"landscape-{plane}{of}" for plane in ("plane", MODELS, "trajectory") for of in ("", "-clients")),
        "landscape-barriers",
    ]
    assert {file.name for file in tmp_path.iterdir()} == {
        f"{name}.{ending}" for name in names for ending in ("json", "csv", "svg", "pdf")
    }
    first_time = (tmp_path / "landscape-barriers.csv").read_bytes()
    again = command("analyze", "landscape", a, "--clients", "2", *barriers, *SMALL)
    assert again.stderr.count("; --again computes anew") == 1
    assert "losses, " not in again.stderr
    assert again.stdout in done.stdout
    assert (tmp_path / "landscape-barriers.csv").read_bytes() == first_time

    found = json.loads((tmp_path / f"landscape-{MODELS}.json").read_text())
    places, points = found["numbers"]["models"], Points(AnalyzedRun.read(a))
    first, second, third = (points.at(name).w for name in ("client:0", "client:1", "final"))
    assert places["client 0"] == [0, 0, 0]
    assert places["client 1"][0] == pytest.approx(float((second - first).norm()))
    away = torch.tensor(places["final model"][:2])
    assert float(away.norm()) == pytest.approx(float((third - first).norm()))
    of_clients = json.loads((tmp_path / "landscape-plane-clients.json").read_text())["numbers"]["models"]
    distance = float((first - third).norm())
    across, up, off = of_clients["client 0"]
    assert off == pytest.approx(distance, rel=0.05), "random directions do not lead to a client's model"
    assert max(abs(across), abs(up)) < 0.05
    barriers = json.loads((tmp_path / "landscape-barriers.json").read_text())["numbers"]
    assert len(barriers["barriers"]["training"]) == len(barriers["to the mean model"]["test"]) == 3
    path = json.loads((tmp_path / "landscape-trajectory.json").read_text())["numbers"]
    assert list(path["models"]) == ["initial model", "round 1", "round 2", "round 3", "round 4"]
    assert path["models"]["round 4"] == [0, 0, 0]
    assert sum(path["explained"]) <= 1


@pytest.mark.slow
def test_by_default_the_line_from_the_initial_model_and_the_random_plane(runs: Path, tmp_path: Path) -> None:
    """The loss in the middle is that of the final model, by a plain evaluation."""
    a = runs / "a"
    found = analyze(a, "--float64", "--out", tmp_path)
    assert list(found) == ["landscape-lines", "landscape-plane"]
    assert set(found["landscape-lines"]["numbers"]["distances"]) == {"initial model to final model"}  # type: ignore[call-overload]
    run = AnalyzedRun.read(a)
    rows = torch.randperm(len(run.setup.targets), generator=torch.Generator().manual_seed(0))[:40]
    module = run.history.model().double()
    with torch.no_grad():
        expected = F.cross_entropy(module(run.setup.dataset.x_train[rows].double()), run.setup.targets[rows])
    losses = losses_in(tmp_path / "landscape-plane.csv")
    assert losses["training", 0, 0] == pytest.approx(float(expected), rel=1e-12)
    assert len(losses) == 2 * 25
    quick = tmp_path / "quick"
    settings = analyze(a, "--out", quick)["landscape-plane"]["settings"]
    assert 0 < settings["float32_error"] < 1e-5  # type: ignore[operator]
    for place, loss in losses_in(quick / "landscape-plane.csv").items():
        assert loss == pytest.approx(losses[place], rel=1e-5)


def test_the_plane_of_a_model_in_closed_form_from_its_numbers(runs: Path, tmp_path: Path) -> None:
    """A corner of the plane through three models, evaluated by hand."""
    analyze(runs / "a", "--plane", "initial,round:2,final", "--float64", "--out", tmp_path)
    run = AnalyzedRun.read(runs / "a")
    points = Points(run)
    first, second, third = (points.at(name).w for name in ("initial", "round:2", "final"))
    u = (second - first) / (second - first).norm()
    v = third - first - u * (u @ (third - first))
    v = v / v.norm()
    (of, across, up), loss = next(iter(losses_in(tmp_path / "landscape-initial-round-2-final.csv").items()))
    assert of == "training"
    module = run.history.model().double()
    Layout.of(module).write(module, first + across * u + up * v)
    rows = torch.randperm(len(run.setup.targets), generator=torch.Generator().manual_seed(0))[:40]
    with torch.no_grad():
        expected = F.cross_entropy(module(run.setup.dataset.x_train[rows].double()), run.setup.targets[rows])
    assert loss == pytest.approx(float(expected), rel=1e-10)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--line", "initial"], "--line initial: give 2 models as FROM,TO, each of initial, final, round:K, client:I,"),
        (["--plane", "initial,final"], "--plane initial,final: give 3 models as A,B,C, each of"),
        (["--line", "initial,finl"], "'finl' is no model of .*did you mean final"),
        (["--line", "round:9,final"], "round 9: .*a has the models of rounds 1, 2, 3, 4"),
        (["--plane", "final,final,initial"], "--plane: its first two models are the same"),
        (["--plane", "initial,final,initial"], "--plane: its three models lie on one line"),
        (["--clients", "99"], "--clients 99: the run has 5"),
        (["--barriers", "99"], "--barriers 99: the run has 5"),
        (["--span", "0"], "--span 0: give a length above 0"),
    ],
)
def test_what_a_run_does_not_have_is_refused_in_a_sentence(arguments: list[str], sentence: str, runs: Path) -> None:
    found = CliRunner().invoke(app, [str(runs / "a"), *arguments, *SMALL])
    assert isinstance(found.exception, InvalidExperiment)
    assert re.match(f".*{sentence}", str(found.exception)), found.exception
    assert "\n" not in str(found.exception)


def test_models_of_another_shape_and_runs_without_saved_models(runs: Path, tmp_path: Path) -> None:
    wide = fedopt.run(experiment(rounds=1).replace(model={"hidden": [9]}), tmp_path / "wide")
    done = command("analyze", "landscape", runs / "a", "--line", f"final,{wide.directory}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "its model has other parameters" in done.stderr
    done = command("analyze", "landscape", runs / "b", "--trajectory")
    assert done.returncode == 2
    assert "b has kept the models of 0 rounds, and 3 are needed; run.keep_models = 10 keeps every tenth" in done.stderr
