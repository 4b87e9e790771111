"""A study whose labels do not describe its runs is refused before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulations.study.checks import checked
from simulations.study.file import SHIPPED, read_study
from tests.commands import fedopt_here

ADAM_AND_SGD = """
seeds = 2
[grid]
"local.optimizer" = ["sgd", "adam"]
"local.momentum" = [0.0, 0.9]
"""

TABLES = """
[[grid.optimizer]]
label = "momentum"
"local.momentum" = 0.9
"local.lr" = [0.01, 0.02]
[[grid.optimizer]]
label = "adam"
"local.optimizer" = "adam"
"""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[grid]\n'run.seed' = [5, 6]\n", "run.seed is set by the axis run.seed, but a study's runs have the seeds of"),
        ("[base.run]\nseed = 5\n[grid]\n'data.alpha' = [0.1, 1.0]\n", "[base.run] sets seed, but a study's runs have"),
        (
            "[grid]\n'local.lr' = [0.1, 0.01]\n[search]\ngrid = { 'local.lr' = [0.3, 0.03] }\n",
            "in lr0.1, local.lr is set by the axis local.lr and by [search]; leave it to one of them",
        ),
        (
            "[grid]\n'local.epochs' = [1, 5]\n'local.steps' = [10, 50]\n",
            "local.epochs is set by the axis local.epochs and local.steps by the axis local.steps, but",
        ),
        (
            "[grid]\n'run.cohort' = [2, 5]\n'run.participation' = [0.1, 0.5]\n",
            "run.cohort is set by the axis run.cohort and run.participation by the axis run.participation, but",
        ),
        (
            "[grid]\n'local.lr' = [0.1, 0.01]\n'local.batch_size' = [8, 16]\n"
            "[[adjust]]\nwhen = { 'local.batch_size' = 8 }\nset = { 'local.lr' = 0.5 }\n",
            "in lr0.1-batch_size8, local.lr is set by the axis local.lr and by [[adjust]] number 1",
        ),
        (
            "[grid]\n'local.lr' = [0.1, 0.5]\n" + TABLES,
            "local.lr is set by the axis local.lr and by the value momentum lr=0.01 of the axis optimizer",
        ),
        (
            "[grid]\n'data.alpha' = [0.1, 1.0]\n[[adjust]]\nwhen = { 'data.alpha' = 0.2 }\nset = { 'local.lr' = 1.0 }",
            "adjust: when: the axis data.alpha has no value 0.2; did you mean 0.1? (one of 0.1, 1)",
        ),
        (
            "[grid]\n" + TABLES + "[[adjust]]\nwhen = { optimizer = 'momentun' }\nset = { 'local.clip' = 1.0 }\n",
            "adjust: when: the axis optimizer has no value 'momentun'; did you mean momentum?",
        ),
        (
            ADAM_AND_SGD,
            "adam-momentum0-seed0 and adam-momentum0.9-seed0 would be the same run: local.momentum, in which",
        ),
        ("[grid]\n'run.participation' = [0.2, 0.21]\n", "would be the same run: run.participation, in which they"),
        ("[grid]\n'run.keep_models' = [0, 5]\n", "would be the same run: run.keep_models, in which they"),
        ("[grid]\nwork = [{ label = 'a' }, { label = 'b' }]\n", "a-seed0 and b-seed0 would be the same run: keep one"),
        (
            "[base.local]\nsteps = 50\n[grid]\n'local.epochs' = [1, 5]\n",
            "[base] sets local.steps, which no run would have: it is set by the axis local.epochs; remove it",
        ),
        (
            "[base.data]\nvalidation = 0.2\n[search]\ngrid = { 'local.lr' = [0.1, 0.3] }\n",
            "[base] sets data.validation, and so does [search]",
        ),
        (
            "[grid]\n'run.rounds' = [5, 9]\n[search]\nrounds = 3\ngrid = { 'local.lr' = [0.1, 0.3] }\n",
            "run.rounds is set by the axis run.rounds and by [search] rounds",
        ),
        (
            "[base.local]\noptimizer = 'adam'\n[search]\ngrid = { 'local.momentum' = [0.0, 0.9] }\n",
            "search/run-momentum0 and search/run-momentum0.9 would be the same run",
        ),
    ],
)
def test_a_key_set_twice_and_two_runs_that_are_one_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "question.toml").write_text(text)
    done = fedopt_here("study", "question.toml", "--dry-run", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_is_refused_has_begun_nothing(tmp_path: Path) -> None:
    (tmp_path / "question.toml").write_text("[base.run]\nrounds = 1\n" + ADAM_AND_SGD)
    done = fedopt_here("study", "question.toml", "--out", "s", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert [file.name for file in tmp_path.iterdir()] == ["question.toml"]


@pytest.mark.parametrize(
    ("text", "override", "sentence"),
    [
        (
            "[grid]\n'data.alpha' = [0.1, 1.0]\n",
            "run.seed=5",
            "--set run.seed: a study's runs have the seeds of --seeds",
        ),
        ("[run]\nrounds = 3\n", "run.seed=5", "--set run.seed: a study's runs have the seeds of --seeds"),
        ("[grid]\n'data.alpha' = [0.1, 1.0]\n", "data.alpha=5.0", "--set data.alpha: the axis data.alpha of the study"),
        ("[grid]\n" + TABLES, "local.lr=0.5", "--set local.lr: the axis optimizer of the study sets local.lr"),
        ("[grid]\n'local.epochs' = [1, 5]\n", "local.steps=9", "--set local.steps: the axis local.epochs of the study"),
        ("[search]\ngrid = { 'local.lr' = [0.1] }\n", "local.lr=0.5", "--set local.lr: [search] of the study sets"),
    ],
)
def test_a_key_that_the_study_sets_cannot_be_overridden(
    tmp_path: Path, text: str, override: str, sentence: str
) -> None:
    (tmp_path / "question.toml").write_text(text)
    done = fedopt_here("study", "question.toml", "--dry-run", "--set", override, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr


@pytest.mark.parametrize(
    "text",
    [
        "[base.local]\nlr = 0.05\n[grid]\n" + TABLES,  # momentum has its own rates, adam the base's
        "[base.data]\npartition = 'shards'\n[grid]\n'data.shards' = [2, { label = 'iid', 'data.partition' = 'iid' }]",
        "[grid]\n" + TABLES + "[[adjust]]\nwhen = { optimizer = 'adam' }\nset = { 'local.lr' = 0.5 }\n",
        "[base.local]\nlr = 0.1\n[grid]\n'data.alpha' = [0.1, 1.0]\n"
        "[[adjust]]\nwhen = { 'data.alpha' = 1 }\nset = { 'local.lr' = 0.5 }\n",
        "[base.run]\nrounds = 9\n[search]\nrounds = 3\ngrid = { 'local.lr' = [0.1, 0.3] }\n",
        # Alike under the default of what is searched, but not under the value that is tried.
        "[grid]\n'local.rho' = [0.05, 0.1]\n[search]\ngrid = { 'local.optimizer' = ['sam'] }\n",
    ],
)
def test_what_contradicts_nothing_is_planned(tmp_path: Path, text: str) -> None:
    (tmp_path / "question.toml").write_text(text)
    assert checked(read_study(tmp_path / "question.toml", [], 1)[1]).runs


@pytest.mark.parametrize("name", [file.stem for file in SHIPPED.glob("*.toml")])
def test_the_shipped_studies_contradict_nothing(name: str) -> None:
    assert checked(read_study(Path(name), [], None)[1]).notes == []


def test_an_adjustment_finds_a_table_by_its_label_whatever_its_lists_try(tmp_path: Path) -> None:
    adjust = "[[adjust]]\nwhen = { optimizer = 'momentum' }\nset = { 'local.clip' = 1.0 }\n"
    (tmp_path / "question.toml").write_text("[grid]\n" + TABLES + adjust)
    runs = checked(read_study(tmp_path / "question.toml", [], 1)[1]).runs
    assert {run.name: run.experiment.local.clip for run in runs} == {
        "momentum-lr-0.01-seed0": 1.0,
        "momentum-lr-0.02-seed0": 1.0,
        "adam-seed0": None,
    }


def test_a_study_prints_the_notes_that_a_run_prints(tmp_path: Path) -> None:
    (tmp_path / "question.toml").write_text(
        "seeds = 2\n[base.local]\nmomentum = 0.9\n[base.data]\npartition = 'iid'\nalpha = 0.5\n"
        "[grid]\n'local.optimizer' = ['sgd', 'adam']\n"
    )
    done = fedopt_here("study", "question.toml", "--dry-run", cwd=tmp_path)
    assert "note: data.alpha is not used by iid\n" in done.stderr
    assert "note: local.momentum is not used by adam (in adam-seed0 and 1 more runs)" in done.stderr
    alone = fedopt_here(
        "run", "--set", "data.partition=iid", "--set", "data.alpha=0.5", "--out", "question.toml", cwd=tmp_path
    )
    assert "note: data.alpha is not used by iid\n" in alone.stderr


def test_a_study_with_nothing_to_compare_says_so(tmp_path: Path) -> None:
    (tmp_path / "experiment.toml").write_text("[run]\nrounds = 3\n")
    done = fedopt_here("study", "experiment.toml", "--dry-run", "--seeds", "1", cwd=tmp_path)
    assert done.stdout == "fedavg-seed0\n"
    assert "note: fedavg alone is run" in done.stderr
