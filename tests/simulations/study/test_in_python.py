"""`fedopt.Study`: the studies of `fedopt study`, described in Python."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

import fedopt
from fedopt.algorithms.scaffold import Scaffold
from fedopt.data.partitions.dirichlet import Dirichlet
from fedopt.errors import InvalidExperiment
from simulations.study.checks import checked
from simulations.study.file import read_study
from simulations.study.in_python import study_of
from simulations.study.plan import PlannedRun
from tests.outside.algorithm import Nudged

FILE = """
title = "A small question"
seeds = [3, 4]

[base.data]
clients = 6

[base.model]
name = "logistic"

[base.run]
rounds = 2
cohort = 3

[grid]
"algorithm.name" = ["fedavg", "scaffold"]
"data.alpha" = [0.1, { label = "iid", "data.partition" = "iid" }]

[[adjust]]
when = { "algorithm.name" = "scaffold" }
set = { "algorithm.server_lr" = 0.9 }

[search]
rounds = 1
grid = { "local.lr" = [0.01, 0.1] }
"""

BASE = fedopt.Experiment(
    data={"clients": 6, "alpha": 0.5},
    model={"name": "logistic"},
    local={"lr": 0.5},
    run={"rounds": 2, "cohort": 3, "seed": 3, "workers": 1},
)


def planned(study: fedopt.Study) -> list[PlannedRun]:
    return checked(study_of(study, study.base)).first


def test_a_study_in_python_plans_the_runs_of_the_same_study_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(FILE)
    _, of_file = read_study(tmp_path / "small.toml", [], None)
    study = fedopt.Study(
        fedopt.Experiment(data={"clients": 6}, model={"name": "logistic"}, run={"rounds": 2, "cohort": 3, "seed": 3}),
        axes={"algorithm.name": ["fedavg", "scaffold"], "data.alpha": [0.1, {"label": "iid", "data.partition": "iid"}]},
        seeds=2,
        title="A small question",
        adjust=[{"when": {"algorithm.name": "scaffold"}, "set": {"algorithm.server_lr": 0.9}}],
        search={"rounds": 1, "grid": {"local.lr": [0.01, 0.1]}},
    )
    assert [(run.name, run.experiment) for run in planned(study)] == [
        (run.name, run.experiment) for run in checked(of_file).first
    ]
    assert study.names == [run.name for run in checked(of_file).runs]


def test_an_axis_is_a_list_of_values_and_may_name_algorithms() -> None:
    names = fedopt.Study(BASE, axes={"algorithm": ["fedavg", "scaffold"]}, seeds=1).names
    assert list(names) == ["fedavg-seed3", "scaffold-seed3"]
    for values, told in (("fedavg", "['fedavg']"), (0.1, "[0.1]")):
        with pytest.raises(InvalidExperiment, match=re.escape(f"takes a list of values, as in {told}, not ")):
            _ = fedopt.Study(BASE, axes={"local.lr": values}, seeds=1).names  # type: ignore[dict-item]


def test_axes_replace_keys_of_the_base_and_leave_the_others() -> None:
    runs = planned(fedopt.Study(BASE, axes={"run.participation": [0.5, 1.0], "local.lr": [0.1]}, seeds=1))
    assert [run.experiment.run.participation for run in runs] == [0.5, 1.0]
    assert {run.experiment.local.model_dump()["lr"] for run in runs} == {0.1}
    assert {run.experiment.run.seed for run in runs} == {3}
    assert {run.experiment.data.partition for run in runs} == {Dirichlet(alpha=0.5)}


def test_defaults_of_the_base_are_not_imposed_on_another_member() -> None:
    (run,) = planned(fedopt.Study(BASE, axes={"algorithm.name": ["scaffold"]}, seeds=[0]))
    assert run.experiment.algorithm == Scaffold()


@pytest.mark.parametrize(
    ("axis", "value", "name", "expected"),
    [
        ("algorithm", Scaffold, "scaffold", Scaffold()),
        ("algorithm", Scaffold(server_lr=0.5), "scaffold-server_lr-0.5", Scaffold(server_lr=0.5)),
        ("algorithm", Nudged, "Nudged", Nudged()),
        ("data.partition", Dirichlet(alpha=2.0), "dirichlet-alpha-2.0", Dirichlet(alpha=2.0)),
    ],
)
def test_a_value_may_be_a_class_or_an_object(axis: str, value: object, name: str, expected: object) -> None:
    (run,) = planned(fedopt.Study(BASE, axes={axis: [value]}, seeds=[0]))
    assert run.name == f"{name}-seed0"
    assert expected in (run.experiment.algorithm, run.experiment.data.partition)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"axes": {"algorithm.nam": ["fedavg"]}}, "algorithm.nam"),
        ({"axes": {"lr": [0.1]}}, "lr is no key of an experiment"),
        ({"axes": {"local.lr": []}}, "local.lr has no values"),
        ({"axes": {"local.lr": [0.1, 0.1]}}, "two combinations are called"),
        ({"axes": {"local.lr": [0.1]}, "compare": "local.momentum"}, "there is no axis 'local.momentum'"),
        ({"axes": {"local.lr": [0.1]}, "seeds": 0}, "a number of seeds, at least 1"),
        ({"axes": {"local.lr": [0.1, 0.2]}, "seeds": [1, 1]}, "a number of seeds, at least 1"),
    ],
)
def test_a_wrong_study_is_refused_before_anything_is_run(given: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidExperiment, match=sentence):
        fedopt.Study(BASE, **given).run(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def of_row(row: Mapping[str, Any]) -> fedopt.Experiment:
    run = BASE.run.model_copy(update={"seed": row["seed"]})
    return BASE.model_copy(update={"algorithm": {"name": row["algorithm.name"]}, "run": run})


def test_a_study_ends_in_tables_and_is_not_run_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    study = fedopt.Study(BASE, axes={"algorithm.name": ["fedavg", "scaffold"]}, seeds=2, title="Which one?")
    result = study.run(tmp_path / "out", jobs=1)
    assert capfd.readouterr() == ("", "")
    assert result.directory == tmp_path / "out"
    assert {path.name for path in result.directory.iterdir()} >= {
        "results.csv",
        "summary.md",
        "report.html",
        *study.names,
    }
    assert "Which one?" in result.page.read_text()
    assert (len(result.table), len(result.runs), result.failures) == (2, 4, {})
    for row in result.runs:
        alone = fedopt.run(of_row(row), tmp_path / f"alone-{row['run']}")
        assert row["test_accuracy"] == alone.summary.final.test_accuracy
    written = {path: path.stat().st_mtime_ns for path in result.directory.glob("*/summary.json")}
    again = study.run(tmp_path / "out", jobs=1)
    assert list(again.table) == list(result.table)
    assert {path: path.stat().st_mtime_ns for path in result.directory.glob("*/summary.json")} == written
    with pytest.raises(InvalidExperiment, match="is a run of another study"):
        fedopt.Study(BASE.model_copy(update={"local": {"lr": 0.1}}), axes=study.axes, seeds=2).run(tmp_path / "out")
    with pytest.raises(InvalidExperiment, match="is not empty, and holds no study"):
        study.run(tmp_path / "alone-fedavg-seed3")


def test_a_study_runs_on_arrays_in_this_process(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((80, 3)).astype(np.float32), rng.integers(0, 2, 80)
    data = fedopt.Data(x[:60], y[:60], x[60:], y[60:], clients=np.arange(60) % 6)
    base = fedopt.Experiment(model={"name": "logistic"}, run={"rounds": 2, "cohort": 3, "workers": 1})
    result = fedopt.Study(base, axes={"local.lr": [0.1]}, seeds=2).run(tmp_path / "out", data=data, progress=True)
    assert "[2/2] lr0.1-seed1: done" in capfd.readouterr().err
    alone = fedopt.run(base.model_copy(update={"local": {"lr": 0.1}}), tmp_path / "alone", data=data)
    assert result.runs[0]["test_accuracy"] == alone.summary.final.test_accuracy


def test_all_runs_of_a_study_start_at_the_module_that_is_passed(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    margin = nn.MultiMarginLoss(margin=2.0)
    base = fedopt.Experiment(data={"clients": 6}, run={"rounds": 1, "cohort": 3, "workers": 1})
    study = fedopt.Study(base, axes={"algorithm.name": ["fedavg", "scaffold"]}, seeds=1)
    result = study.run(tmp_path / "out", model=(net, margin))
    assert result.failures == {}
    for name, row in zip(["fedavg", "scaffold"], result.runs, strict=True):
        own = base.replace(algorithm=name)
        alone = fedopt.run(own, tmp_path / name, model=(net, margin)).summary
        assert row["test_accuracy"] == alone.final.test_accuracy
        assert fedopt.load(tmp_path / "out" / f"{name}-seed0").summary.weights_sha256 == alone.weights_sha256
    more = fedopt.Study(base, axes=study.axes, seeds=2).run(tmp_path / "out", model=(net, margin))
    assert len(more.runs) == 4
    with pytest.raises(InvalidExperiment, match=r"is a run of another study: model\.sha256 was"):
        study.run(tmp_path / "out", model=(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), margin))
    with pytest.raises(InvalidExperiment, match=r"model=: it must be a torch\.nn\.Module"):
        study.run(tmp_path / "new", model=3)  # type: ignore[arg-type]
    with pytest.raises(InvalidExperiment, match="model=: no run of the study has it, because"):
        fedopt.Study(base, axes={"model.name": ["mlp", "logistic"]}).run(tmp_path / "new", model=net)
    assert not (tmp_path / "new").exists()


def test_each_run_of_a_study_has_its_observers(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []

    def observers(name: str) -> list[object]:
        return [lambda record: seen.append((name, record.round))]

    study = fedopt.Study(BASE, axes={"algorithm.name": ["fedavg", "scaffold"]}, seeds=1)
    with pytest.raises(InvalidExperiment, match=r"observers=: a study takes a function of a run's name"):
        study.run(tmp_path / "out", observers=[print])  # type: ignore[arg-type]
    with pytest.raises(InvalidExperiment, match="observers: int is no function"):
        study.run(tmp_path / "out", observers=lambda name: [3])
    assert study.run(tmp_path / "out", observers=observers).failures == {}
    assert seen == [(name, round_) for name in study.names for round_ in (1, 2)]


def test_a_run_that_fails_is_named_and_the_others_count(tmp_path: Path) -> None:
    study = fedopt.Study(BASE, axes={"local.lr": [0.1, 1e30]}, seeds=1)
    result = study.run(tmp_path / "out", jobs=1)
    ((name, reason),) = result.failures.items()
    assert name == "lr1e+30-seed3"
    assert reason.startswith("diverged: ")
    assert [row["finished"] for row in result.table] == [1, 0]
    assert any("diverged" in warning for warning in result.warnings)
