"""What a notebook shows: curves as SVG, a run as a table, progress as a bar."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import fedopt
from fedopt.runs.notebook import NotebookProgress, bar, displays, in_notebook
from fedopt.runs.progress import PlainProgress
from fedopt.runs.sparkline import MARGIN, MOST_POINTS, chart, sparkline


def points_of(svg: str) -> list[tuple[float, float]]:
    """The points of the curve in an SVG, which must be well-formed."""
    (line,) = ElementTree.fromstring(svg).iter("polyline")
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in line.attrib["points"].split())]


def test_a_sparkline_is_scaled_to_its_own_values() -> None:
    assert points_of(sparkline([(1, 3.0), (2, 5.0), (3, 4.0)], width=104, height=24)) == [
        (MARGIN, 24 - MARGIN),
        (52, MARGIN),
        (104 - MARGIN, 12),
    ]


def test_a_sparkline_leaves_out_what_is_not_finite_and_needs_two_values() -> None:
    assert points_of(sparkline([(1, 0.0), (2, math.nan), (3, math.inf), (5, 1.0)], width=24, height=24)) == [
        (MARGIN, 24 - MARGIN),
        (24 - MARGIN, MARGIN),
    ]
    assert sparkline([(1, math.nan), (2, 1.0)]) == ""


def test_a_long_curve_is_thinned_and_keeps_its_last_value() -> None:
    drawn = points_of(sparkline([(number, float(number == 10_000)) for number in range(1, 10_001)], height=24))
    assert MOST_POINTS / 2 < len(drawn) <= MOST_POINTS + 1
    assert drawn[-1][1] == MARGIN
    assert {y for _, y in drawn[:-1]} == {24 - MARGIN}


def test_a_chart_leaves_room_for_the_rounds_to_come() -> None:
    svg = chart([(1, 0.25), (2, 0.5)], rounds=11, width=152, height=120)
    (_, _), (x, _) = points_of(svg)
    assert x == MARGIN + (152 - 48 - 2 * MARGIN) / 10
    assert re.findall(r">([^<>]+)</text>", svg) == ["50.0%", "25.0%", "1", "round 11"]


def test_a_bar_escapes_what_it_says() -> None:
    shown = bar(0.25, "a < b", notes=["c & d"])
    assert "width:25.0%" in shown
    assert "a &lt; b" in shown
    assert "c &amp; d" in shown


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> fedopt.History:
    experiment = fedopt.Experiment(algorithm={"name": "scaffold"}, run={"rounds": 3, "workers": 1})
    return fedopt.run(experiment, tmp_path_factory.mktemp("display") / "run")


def test_a_history_is_one_line_as_text(history: fedopt.History) -> None:
    accuracy = history.records[-1].test_accuracy
    assert repr(history).startswith(f"History({str(history.directory)!r}: scaffold on digits, seed 0: 3 rounds in ")
    assert f"test accuracy {accuracy:.2%}" in repr(history)
    assert "\n" not in repr(history)


def test_a_history_has_a_row_for_each_measure(history: fedopt.History) -> None:
    shown = ElementTree.fromstring(history._repr_html_().replace("<br>", "<br/>"))
    rows = {row[0].text: row for row in shown.find("table/tbody") or []}
    assert {"test_accuracy", "train_loss", "drift.ratio", "gradients.zeta2", "algorithm.error"} <= rows.keys()
    first, last, lowest, highest = (cell.text for cell in rows["test_accuracy"][2:])
    accuracies = [record.test_accuracy for record in history.records if record.test_accuracy is not None]
    assert [first, last] == [f"{accuracies[0]:.2%}", f"{accuracies[-1]:.2%}"]
    assert [lowest, highest] == [f"{min(accuracies):.2%}", f"{max(accuracies):.2%}"]
    assert rows["test_accuracy"][1].find("svg/polyline") is not None


def test_the_bar_of_a_notebook_says_which_run_it_is(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    experiment = fedopt.Experiment(algorithm={"name": "scaffold"}, run={"rounds": 2, "seed": 7, "workers": 1})
    fedopt.run(experiment, tmp_path / "run", [NotebookProgress()])
    shown = capfd.readouterr().out  # without a kernel, IPython prints what it would display
    assert ">scaffold on digits, seed 7: round 0 of 2</div>" in shown
    assert "'text/plain': 'scaffold on digits, seed 7: 2 rounds in " in shown


def test_a_script_is_silent_unless_it_asks_for_progress(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert not in_notebook()
    assert displays(None) == displays(False) == []
    assert isinstance(displays(True)[0], PlainProgress)
    fedopt.run(fedopt.Experiment(run={"rounds": 1, "workers": 1}), tmp_path / "silent")
    assert capfd.readouterr() == ("", "")
    fedopt.run(fedopt.Experiment(run={"rounds": 1, "workers": 1}), tmp_path / "shown", progress=True)
    assert "round 1/1" in capfd.readouterr().err
