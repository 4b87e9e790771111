"""The runs that a study's file stands for, and the error messages about mistakes in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fedopt.errors import InvalidExperiment
from fedopt.optimizers.sgd import Sgd
from simulations.study.checks import checked
from simulations.study.file import SHIPPED, Study, flatten, read_study, shipped_studies
from simulations.study.plan import combinations, planned_runs, search_runs

GRID = """
title = "A question"
seeds = [3, 5]

[base.data]
clients = 4

[grid]
"data.alpha" = [0.1, 1, { label = "iid", "data.partition" = "iid" }]
"algorithm.name" = ["fedavg", "scaffold"]

[[grid.optimizer]]
label = "momentum"
"local.momentum" = 0.9
"local.lr" = [0.01, 0.02]

[[grid.optimizer]]
label = "adam"
"local.optimizer" = "adam"

[[adjust]]
when = { "algorithm.name" = "scaffold", optimizer = "adam" }
set = { "local.lr" = 0.005 }
"""


def study(tmp_path: Path, text: str, *overrides: str, seeds: int | None = None) -> Study:
    (tmp_path / "question.toml").write_text(text)
    return read_study(tmp_path / "question.toml", list(overrides), seeds)[1]


def test_every_combination_is_run_under_every_seed(tmp_path: Path) -> None:
    asked = study(tmp_path, GRID)
    runs = planned_runs(asked, combinations(asked))
    assert len(runs) == 3 * 2 * 3 * 2  # alpha, algorithm, (momentum at two rates and adam), seeds
    by_name = {run.name: run for run in runs}
    run = by_name["alpha0.1-scaffold-momentum-lr-0.02-seed5"]
    assert (run.experiment.data.model_dump()["alpha"], run.experiment.local.lr) == (0.1, 0.02)
    assert run.experiment.local.optimizer == Sgd(momentum=0.9)
    assert (run.experiment.algorithm.name, run.experiment.run.seed, run.experiment.data.clients) == ("scaffold", 5, 4)
    assert run.combination.labels == {
        "data.alpha": "0.1",
        "algorithm.name": "scaffold",
        "optimizer": "momentum lr=0.02",
    }
    iid = by_name["iid-fedavg-adam-seed3"].experiment
    assert (iid.data.partition.name, iid.local.optimizer.name) == ("iid", "adam")


def test_adjustments_are_for_the_combinations_that_match(tmp_path: Path) -> None:
    asked = study(tmp_path, GRID)
    rates = {run.name: run.experiment.local.lr for run in planned_runs(asked, combinations(asked))}
    assert rates["alpha0.1-scaffold-adam-seed3"] == 0.005
    assert rates["alpha0.1-fedavg-adam-seed3"] == 0.05  # the default
    assert rates["alpha0.1-scaffold-momentum-lr-0.01-seed3"] == 0.01


def test_overrides_and_seeds_of_the_command_line_count(tmp_path: Path) -> None:
    asked = study(tmp_path, GRID, "run.rounds=7", "data.clients=6", seeds=1)
    runs = planned_runs(asked, combinations(asked))
    assert {run.seed for run in runs} == {0}
    assert {(run.experiment.run.rounds, run.experiment.data.clients) for run in runs} == {(7, 6)}


def test_an_experiment_file_is_a_study_of_its_algorithm_beside_fedavg(tmp_path: Path) -> None:
    text = '[algorithm]\nname = "scaffold"\nvariant = "full-gradient"\n[run]\nrounds = 3\nseed = 7\n'
    asked = study(tmp_path, text)
    runs = planned_runs(asked, combinations(asked))
    assert [run.name for run in runs][::3] == ["fedavg-seed7", "scaffold-seed7"]
    assert [run.seed for run in runs] == [7, 8, 9] * 2  # from the file's own seed on
    assert all(run.experiment.run.rounds == 3 for run in runs)
    assert runs[-1].experiment.algorithm.model_dump()["variant"] == "full-gradient"


@pytest.mark.parametrize(
    ("text", "overrides", "names"),
    [
        ("[run]\nrounds = 3\n", [], ["fedavg-seed0"]),
        ('[algorithm]\nname = "fedavg"\nserver_lr = 0.5\n', [], ["fedavg-seed0"]),
        ("[run]\nrounds = 3\n", ["algorithm.name=scaffold"], ["fedavg-seed0", "scaffold-seed0"]),
        ("", ["run.rounds=3"], ["fedavg-seed0"]),
    ],
)
def test_an_experiment_file_of_fedavg_is_run_alone(
    tmp_path: Path, text: str, overrides: list[str], names: list[str]
) -> None:
    asked = study(tmp_path, text, *overrides, seeds=1)
    assert [run.name for run in planned_runs(asked, combinations(asked))] == names


def test_a_search_tries_its_values_on_held_out_data_for_each_combination(tmp_path: Path) -> None:
    text = GRID + '[search]\nvalidation = 0.2\nrounds = 4\ngrid = { "local.lr" = [0.1, 0.01], "local.clip" = [1.0] }\n'
    asked = study(tmp_path, text)
    assert asked.search is not None
    first = combinations(asked)[0]
    tries = search_runs(asked, asked.search, first)
    assert [run.experiment.local.lr for run in tries] == [0.1, 0.01]
    assert all(run.experiment.data.validation == 0.2 and run.experiment.run.rounds == 4 for run in tries)
    assert [run.name for run in tries] == [f"search/{first.name}-lr{lr}-clip1" for lr in (0.1, 0.01)]
    final = planned_runs(asked, [tries[1].combination])[0].experiment
    assert (final.local.lr, final.local.clip, final.data.validation) == (0.01, 1.0, 0.0)


def test_unquoted_keys_mean_the_same() -> None:
    grid: dict[str, Any] = {"local": {"lr": [0.1]}, "data.alpha": [1.0], "optimizer": [{"label": "x"}]}
    assert flatten(grid) == {"local.lr": [0.1], "data.alpha": [1.0], "optimizer": [{"label": "x"}]}
    assert Study(grid=grid, compare="local.lr").grid.keys() == {"local.lr", "data.alpha", "optimizer"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[grid]\n'data.alpha' = [0.1]\n[gird]\n", "unknown key; did you mean grid?"),
        ("[base.dta]\nalpha = 1.0\n[grid]\n", "unknown section 'dta'; did you mean data?"),
        ("[grid]\n'data.alfa' = [0.1]\n", "alfa0.1: data.alfa: unknown key; did you mean alpha?"),
        ("[grid]\n'data.alpha' = [-1.0]\n", "data.alpha: must be greater than 0"),
        ("[grid]\n'data.alpha' = []\n", "data.alpha has no values"),
        ("[grid]\n'data.alpha' = 0.1\n", "must be"),
        ("[grid]\noptimizer = ['sgd']\n", "optimizer is no key"),
        ("[grid]\n'data.alpha' = [0.1, 0.1]\n", "two combinations are called alpha0.1"),
        ("seeds = 0\n[grid]\n", "a number of seeds, at least 1"),
        ("seeds = [1, 1]\n[grid]\n", "a number of seeds, at least 1"),
        (
            "seeds = 'three'\n[grid]\n",
            "seeds: must be a number of seeds, or a list of them: 3 or [0, 1, 2], not 'three'",
        ),
        ("seeds = 2.5\n[grid]\n", "seeds: must be a number of seeds, or a list of them"),
        ("seeds = [0, 1.5]\n[grid]\n", "seeds: must be a number of seeds, or a list of them"),
        (
            "compare = 'data.alpa'\n[grid]\n'data.alpha' = [0.1]\n",
            "there is no axis 'data.alpa'; did you mean data.alpha?",
        ),
        ("[[adjust]]\nwhen = {x = 1}\nset = {}\n[grid]\n'data.alpha' = [0.1]\n", "there is no axis 'x'"),
        ("[[adjust]]\nwhen = {}\nset = {lr = 1}\n[grid]\n'data.alpha' = [0.1]\n", "'lr' is no key"),
        ("[search]\ngrid = {}\n[grid]\n", "at least 1 item"),
        ("[grid\n", "is not valid TOML"),
    ],
)
def test_a_mistake_gets_a_sentence(tmp_path: Path, text: str, message: str) -> None:
    def plan() -> None:
        asked = study(tmp_path, text)
        planned_runs(asked, combinations(asked))

    with pytest.raises(InvalidExperiment) as error:
        plan()
    assert message in str(error.value)


def test_a_study_that_is_nowhere_gets_the_nearest_name() -> None:
    with pytest.raises(
        InvalidExperiment, match="there is no study mnist-alfa, as a file or shipped; did you mean mnist-alpha"
    ):
        read_study(Path("mnist-alfa"), [], None)


@pytest.mark.parametrize("name", [file.stem for file in SHIPPED.glob("*.toml")])
def test_the_shipped_studies_are_valid_and_say_how_long_they_take(name: str) -> None:
    _, asked = read_study(Path(name), [], None)
    plan = checked(asked)
    assert "on 2 cores" in shipped_studies()[name]
    assert name == "digits" or f"{len(plan.runs)} runs" in asked.about
    assert plan.notes == []


def test_the_studies_that_were_promised_are_shipped() -> None:
    assert set(shipped_studies()) >= {"digits", "mnist-alpha", "mnist-epochs", "mnist-participation"}
    assert set(shipped_studies()) >= {"course-central", "course-federated"}
    _, sweep = read_study(Path("mnist-alpha"), [], None)
    names = {run.combination.name for run in planned_runs(sweep, combinations(sweep))}
    assert len(names) == 6 * 2 * 4


def test_a_directory_of_its_name_does_not_hide_a_shipped_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    name, _ = read_study(Path("digits"), [], None)
    assert name == "digits"
