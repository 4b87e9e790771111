"""Which runs a report puts together, which it compares, and what it says of those that were lost."""

from __future__ import annotations

import csv
import io
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import fedopt
from fedopt.runs.past_runs import DIVERGED, FAILURE
from simulations.commands.study import print_table
from simulations.comparison import is_winner, paired
from simulations.report.figures import _over_rounds
from simulations.report.page import page, page_data
from simulations.results import PLAN, Plan, PlannedLabels, Results, read_results
from simulations.study.tables import results_csv, summary_md

BASE: dict[str, dict[str, Any]] = {
    "data": {"clients": 4, "partition": "iid"},
    "model": {"name": "logistic"},
    "local": {"epochs": 1},
    "run": {"rounds": 2, "cohort": 2},
}


def run(out: Path, **sections: dict[str, Any]) -> Path:
    """A real run of two rounds."""
    given = {name: BASE.get(name, {}) | sections.get(name, {}) for name in BASE.keys() | sections.keys()}
    for key, other in (("steps", "epochs"), ("participation", "cohort")):
        for section in ("local", "run"):
            if key in given[section]:
                given[section].pop(other)
    fedopt.run(fedopt.Experiment(**given), out)
    return out


def groups(results: Results) -> dict[tuple[str, ...], list[int]]:
    """Labels to seeds."""
    return {tuple(group.labels.values()): [row.seed for row in group.rows] for group in results.groups}


def data_file(file: Path, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((60, 3)).astype(np.float32), rng.integers(0, 2, 60)
    np.savez(file, x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    return file


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on two data files, of which one has a copy elsewhere: a-0, a-1, b-0, b-1, copy-2, and seed 1 twice."""
    folder = tmp_path_factory.mktemp("files")
    a, b = data_file(folder / "a.npz", 0), data_file(folder / "b.npz", 1)
    (folder / "elsewhere").mkdir()
    copy = Path(shutil.copy(a, folder / "elsewhere" / "c.npz"))
    for name, file, seed in (("a-0", a, 0), ("a-1", a, 1), ("b-0", b, 0), ("b-1", b, 1), ("copy-2", copy, 2)):
        run(folder / name, data={"name": "npz", "path": file}, run={"seed": seed})
    shutil.copytree(folder / "a-1", folder / "a-1-again")
    return folder


def test_runs_of_different_data_are_no_seeds_of_each_other(files: Path) -> None:
    results = read_results([files / "a-0", files / "b-1"])
    assert groups(results) == {("a.npz",): [0], ("b.npz",): [1]}
    assert "the runs are of different data: their accuracies do not compare" in results.warnings
    assert results.compare == ""
    assert list(paired(results)) == []
    assert "±" not in summary_md(results).split("best of each", 1)[1]
    assert "**" not in summary_md(results)
    both = read_results([files / name for name in ("a-0", "a-1", "b-0", "b-1")])
    assert groups(both) == {("a.npz",): [0, 1], ("b.npz",): [0, 1]}


def test_a_copy_of_the_data_elsewhere_is_the_same_data(files: Path) -> None:
    results = read_results([files / name for name in ("a-0", "a-1", "copy-2")])
    assert groups(results) == {(): [0, 1, 2]}
    assert results.warnings == ()
    # With other data beside them a fingerprint tells, since one data set has two names.
    labels = [group.labels["data"] for group in read_results([files / n for n in ("a-0", "copy-2", "b-0")]).groups]
    assert [re.fullmatch(r"([abc])\.npz [0-9a-f]{8}", label)[1] for label in labels] == ["a", "c", "b"]  # type: ignore[index]


def test_a_run_given_twice_counts_once_and_is_named(files: Path) -> None:
    results = read_results([files / "a-0", files / "a-1", files / "a-1-again"])
    assert groups(results) == {(): [0, 1]}
    (warning,) = results.warnings
    assert warning == (
        f"{files / 'a-1-again'} is {files / 'a-1'} again: the same experiment, data and seed; it is left out"
    )


def test_of_the_same_run_the_one_that_ended_counts(files: Path, tmp_path: Path) -> None:
    going = Path(shutil.copytree(files / "a-0", tmp_path / "going"))
    (going / "summary.json").unlink()
    results = read_results([going, files / "a-0"])
    assert [row.run.path for row in results.rows] == [files / "a-0"]


def test_runs_from_before_fingerprints_with_other_paths_are_doubted(files: Path, tmp_path: Path) -> None:
    old = [Path(shutil.copytree(files / name, tmp_path / name)) for name in ("a-0", "b-1")]
    for place in old:
        (place / "fingerprint.json").unlink()
    (warning,) = read_results(old).warnings
    assert "data.path is not the same in all runs, and for 2 of them" in warning
    assert "no fingerprint can say whether the data are" in warning


def test_data_that_are_drawn_from_the_seed_are_not_told_apart_by_it(tmp_path: Path) -> None:
    synthetic = {"name": "synthetic", "partition": "natural"}
    runs = [run(tmp_path / f"{seed}", data=synthetic, run={"seed": seed}) for seed in (0, 1)]
    results = read_results(runs)
    assert groups(results) == {(): [0, 1]}
    assert results.warnings == ()


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        # What never changes a result, and what is not read, is no axis.
        ({"run": {"workers": 1}}, {"run": {"workers": 2}}, {}),
        ({"run": {"patience": 5.0}}, {"run": {"deadline": 7.0}}, {}),
        ({"metrics": {"drift": "off"}}, {}, {}),
        ({"data": {"alpha": 0.5}}, {}, {}),
        ({"run": {"cohort": 2}}, {"run": {"participation": 0.5}}, {}),
        # What changes it is one, given or not.
        ({"local": {"clip": 0.01}}, {}, {"local.clip": ["0.01", "-"]}),
        ({"local": {"steps": 3}}, {}, {"local.epochs": ["-", "1"], "local.steps": ["3", "-"]}),
        ({"run": {"cohort": 3}}, {"run": {"participation": 0.5}}, {"run.cohort": ["3", "2"]}),
    ],
)
def test_an_axis_is_what_changes_a_result(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], expected: dict[str, list[str]]
) -> None:
    second = second | {"run": second.get("run", {}) | {"seed": 1}}
    results = read_results([run(tmp_path / "a", **first), run(tmp_path / "b", **second)])
    assert results.axes == expected


def planned(folder: Path, compare: str, runs: dict[str, PlannedLabels]) -> Path:
    """What a study leaves beside its runs."""
    plan = Plan(title="A question", about="", compare=compare, runs=runs)
    (folder / PLAN).write_text(plan.model_dump_json())
    (folder / "study.toml").write_text("")
    return folder


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two algorithms under three seeds; a search chose another rate for each."""
    folder = tmp_path_factory.mktemp("pair")
    labels = {}
    for name, rate in (("fedavg", 0.1), ("scaffold", 0.02)):
        for seed in (0, 1, 2):
            run(folder / f"{name}-seed{seed}", algorithm={"name": name}, local={"lr": rate}, run={"seed": seed})
            labels[f"{name}-seed{seed}"] = PlannedLabels(
                labels={"algorithm.name": name}, seed=seed, searched={"local.lr": str(rate)}
            )
    return planned(folder, "algorithm.name", labels)


def accuracies(folder: Path, name: str) -> list[float]:
    rows = read_results([folder]).rows
    return [100 * row.accuracy for row in rows if row.name.startswith(name) and row.accuracy is not None]


def test_groups_for_which_a_search_chose_differently_are_compared(pair: Path) -> None:
    results = read_results([pair])
    assert results.axes == {"algorithm.name": ["fedavg", "scaffold"]}
    (found,) = paired(results)
    gains = np.array(accuracies(pair, "scaffold")) - accuracies(pair, "fedavg")
    assert found.gains == pytest.approx(gains)
    wins = is_winner(results, lambda row: row.accuracy)
    means = [np.mean(accuracies(pair, name)) for name in ("fedavg", "scaffold")]
    assert [wins(group) for group in results.groups] == [means[0] > means[1], means[1] > means[0]]
    lines = summary_md(results).splitlines()
    assert any(line.startswith("| algorithm | lr (searched) | ") for line in lines)
    assert any(line.startswith("| scaffold | 0.02 | ") for line in lines)
    rows = list(csv.DictReader(io.StringIO(results_csv(results))))
    assert [row["local.lr (searched)"] for row in rows] == ["0.1"] * 3 + ["0.02"] * 3


def test_a_plan_of_before_is_read_in_the_same_way(pair: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pair, tmp_path / "pair"))
    text = (folder / PLAN).read_text()
    old = re.sub(
        r'"labels":\{([^}]*)\}(,"seed":\d+),"searched":\{"local.lr":("[^"]*")\}',
        r'"labels":{\1,"local.lr (searched)":\3}\2',
        text,
    )
    assert '"searched"' not in old
    (folder / PLAN).write_text(old)
    assert summary_md(read_results([folder])) == summary_md(read_results([pair]))


def lose(folder: Path, names: Sequence[str]) -> None:
    """Leaves of these runs what a run that diverged leaves."""
    for name in names:
        (folder / name / "summary.json").unlink()
        (folder / name / FAILURE).write_text(f"{DIVERGED}round 2 went wrong\n")


def test_a_lone_survivor_is_marked_everywhere_has_no_deviation_and_does_not_win(pair: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pair, tmp_path / "pair"))
    lose(folder, ["fedavg-seed0", "fedavg-seed2"])
    results = read_results([folder])
    survivor = read_results([folder / "fedavg-seed1"])
    accuracy = accuracies(folder, "fedavg")[0]
    mark = f"{accuracy:.2f} (1 of 3 runs)"
    console = Console(width=200, file=io.StringIO())
    print_table(console, results)
    assert isinstance(console.file, io.StringIO)
    terminal = console.file.getvalue()
    for text in (summary_md(results), page(results), terminal):
        assert mark in text
        assert "± 0.00" not in text
        assert f"**{accuracy:.2f}" not in text
        assert f"<strong>{accuracy:.2f}" not in text
    wins = is_winner(results, lambda row: row.accuracy)
    assert not any(wins(group) for group in results.groups)  # there is none to compare with
    # All columns are of the run that finished.
    fedavg = next(group for group in results.groups if group.labels["algorithm.name"] == "fedavg")
    (row,) = survivor.rows
    assert [found.run.path for found in fedavg.finished] == [row.run.path]
    cells = next(line for line in summary_md(results).splitlines() if line.startswith("| fedavg |")).split(" | ")
    alone = summary_md(survivor).splitlines()
    figures = next(line for line in alone if line.startswith("| ") and "fedavg-seed1" in line).split(" | ")
    assert cells[3:-1] == figures[1:-1]  # best, drift, seconds, as of the run reported alone
    assert cells[-1].startswith("fedavg-seed{0,1,2} (2 of 3 diverged)")
    # A pair of one seed has no deviation either, and says that it is of one.
    (found,) = paired(results)
    assert found.spread == f"{found.gains[0]:+.2f} (1 of 3 seeds)"
    data = {group["title"]: group for group in page_data(results)["groups"]}
    assert data["fedavg"]["mark"] == " (1 of 3 runs)"
    assert data["fedavg"]["final"][1] is None
    assert data["scaffold"]["mark"] == ""
    assert data["fedavg"]["curves"]["test_accuracy"][2] == [None, None]


def test_a_row_says_how_its_runs_were_lost(pair: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pair, tmp_path / "pair"))
    lose(folder, ["fedavg-seed0"])
    (folder / "fedavg-seed2" / "summary.json").unlink()
    assert "(1 of 3 diverged, 1 of 3 unfinished)" in summary_md(read_results([folder]))


def test_rounds_to_a_target_stand_under_that_target(tmp_path: Path) -> None:
    """A tenth is right in the first round, nearly all after two rounds never."""
    low = run(tmp_path / "low", run={"target_accuracy": 0.1})
    high = run(tmp_path / "high", run={"target_accuracy": 0.995})
    lines = summary_md(read_results([low, high])).splitlines()
    header = next(line for line in lines if "rounds to" in line).split(" | ")
    columns = [header.index("rounds to 10%"), header.index("rounds to 99.5%")]
    cells = {
        label: [line.split(" | ")[column] for column in columns]
        for line in lines
        for label in ("0.1", "0.995")
        if line.startswith(f"| {label} |")
    }
    assert cells == {"0.1": ["1", "-"], "0.995": ["-", "never"]}
    rows = list(csv.DictReader(io.StringIO(results_csv(read_results([low, high])))))
    assert {(row["target_accuracy"], row["rounds_to_target"]) for row in rows} == {("0.1", "1"), ("0.995", "")}


def test_data_that_changed_within_a_study_are_told_apart(tmp_path: Path) -> None:
    file = data_file(tmp_path / "a.npz", 0)
    labels = {}
    for seed in (0, 1):
        run(tmp_path / f"seed{seed}", data={"name": "npz", "path": file}, run={"seed": seed})
        labels[f"seed{seed}"] = PlannedLabels(labels={}, seed=seed)
        data_file(file, 1)
    results = read_results([planned(tmp_path, "", labels)])
    assert [list(group.labels) for group in results.groups] == [["data"], ["data"]]
    assert "the runs are of different data: their accuracies do not compare" in results.warnings


def test_panels_side_by_side_share_their_axes(tmp_path: Path) -> None:
    runs = [
        run(tmp_path / f"{name}-{rate}", algorithm={"name": name}, local={"lr": rate})
        for name in ("fedavg", "scaffold")
        for rate in (0.0001, 0.01, 0.3)
    ]
    figure = _over_rounds(read_results(runs), "test_accuracy", "test accuracy, %")
    assert figure is not None
    panels = [panel for panel in figure.axes if panel.get_visible()]
    assert len(panels) == 3
    assert len({panel.get_ylim() for panel in panels}) == 1
    assert {panel.get_xlim() for panel in panels} == {panels[0].get_xlim()}
    figure.canvas.draw()
    shown = [any(label.get_visible() and label.get_text() for label in p.get_xticklabels()) for p in panels]
    assert shown == [False, True, True]  # the lowest panel of each column


def test_settings_that_nothing_compares_with_share_a_panel_and_are_named(tmp_path: Path) -> None:
    runs = [
        run(tmp_path / "first", algorithm={"name": "scaffold"}, local={"lr": 0.1}),
        run(tmp_path / "second", local={"lr": 0.01, "momentum": 0.9, "nesterov": True}),
    ]
    results = read_results(runs)
    figure = _over_rounds(results, "test_accuracy", "test accuracy, %")
    assert figure is not None
    (panel,) = figure.axes
    assert len(panel.lines) == 2
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["scaffold, momentum 0.0, no nesterov, lr 0.1", "fedavg, momentum 0.9, nesterov, lr 0.01"]


def test_true_and_false_have_the_name_of_their_axis_when_compared(tmp_path: Path) -> None:
    runs = [run(tmp_path / str(on), local={"momentum": 0.9, "nesterov": on}) for on in (False, True)]
    (pair,) = paired(read_results(runs))
    assert pair.difference == "nesterov - no nesterov"
