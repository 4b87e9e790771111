"""What `fedopt analyze` wrote, on the page of the runs' report."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest

import fedopt
from simulations.analysis.result import Result
from simulations.report.landscapes import Plane, landscapes
from simulations.report.page import page
from simulations.report.shown import ShownFigure
from simulations.results import read_results


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two algorithms with two seeds each."""
    folder = tmp_path_factory.mktemp("analyzed")
    for name in ("fedavg", "scaffold"):
        for seed in (0, 1):
            experiment = fedopt.Experiment(
                data={"clients": 4},
                model={"name": "logistic"},
                algorithm={"name": name},
                local={"epochs": None, "steps": 1},
                run={"rounds": 1, "seed": seed},
            )
            fedopt.run(experiment, folder / f"{name}-{seed}")
    return folder


def result(value: float | None, finding: str = "it is sharp") -> Result:
    def figure() -> ShownFigure:
        drawn = ShownFigure(figsize=(2, 2))
        drawn.subplots().plot([0, 1], [0, 1 if value is None else value])
        return drawn

    return Result(
        "sharpness", "Sharpness of it", [finding], {}, ("a",), [(1,)], figure, compared={"largest <λ>": value}
    )


def test_runs_that_were_not_analyzed_have_no_section(runs: Path) -> None:
    assert 'id="analyses"' not in page(read_results([runs]))


def test_the_numbers_are_means_over_seeds_and_the_figures_stand_side_by_side(runs: Path) -> None:
    for name, values in {"fedavg": (1.0, 4.0), "scaffold": (0.5, None)}.items():
        for seed, value in enumerate(values):
            result(value, f"{name} <{seed}>").write(runs / f"{name}-{seed}" / "analysis")
    text = page(read_results([runs]))
    assert "largest &lt;λ&gt;" in text
    rows = re.findall(r"<tr><td>([^<]*)</td><td class=\"n\">([^<]*)</td><td class=\"n\">(\d)</td></tr>", text)
    # mean 2.5, deviation sqrt((1.5^2 + 1.5^2) / 1) = 2.12; of one value there is none
    assert [cells for cells in rows if cells[2] == "2"] == [("fedavg", "2.5 ± 2.1", "2"), ("scaffold", "0.5", "2")]
    pictures = re.findall(r'src="data:image/svg\+xml;base64,([^"]*)"', text)
    files = [(runs / f"{name}-0" / "analysis" / "sharpness.svg").read_bytes() for name in ("fedavg", "scaffold")]
    assert [base64.b64decode(picture) for picture in pictures] == files
    assert "fedavg &lt;0&gt;" in text
    assert "seed 0" in text


def test_a_damaged_result_is_named_and_left_out(runs: Path) -> None:
    result(1.0).write(runs / "fedavg-0" / "analysis")
    file = runs / "fedavg-0" / "analysis" / "torn.json"
    for content in (b'{"name": "torn', b"[]", b'{"name": "torn"}', b"\xff\xfe"):
        file.write_bytes(content)
        text = page(read_results([runs]))
        assert f"{file} cannot be read as the result of an analysis and is left out" in text
        assert "Sharpness of it" in text
    file.unlink()


def plane(at_least: float) -> str:
    """A bowl with this loss at its bottom, as `fedopt analyze landscape` writes it."""
    places = [-1.0, 0.0, 1.0]
    rows = [f"training,{a},{b},{at_least + a * a + 2 * b * b}" for b in places for a in places]
    return "\n".join(["loss of,direction 1,direction 2,loss", *rows, "test,0.0,0.0,9.0"]) + "\n"


def test_planes_are_drawn_on_one_scale(runs: Path) -> None:
    for name, least in {"fedavg": 1.0, "scaffold": 0.5}.items():
        folder = runs / f"{name}-1" / "analysis"
        folder.mkdir(exist_ok=True)
        (folder / "landscape-plane.csv").write_text(plane(least))
    figure = landscapes(read_results([runs]))
    assert figure is not None
    first, second, bar = figure.axes
    assert [panel.get_title() for panel in (first, second)] == ["fedavg", "scaffold"]
    assert first.collections[0].get_clim() == second.collections[0].get_clim()
    low, high = first.collections[0].get_clim()
    assert low <= 0.5
    assert high >= 1 + 1 + 2
    assert "training loss" in (bar.get_xlabel() or bar.get_ylabel())


@pytest.mark.parametrize(
    "damage", ["", "loss of,a,b,loss\n", "loss of,a,b,loss\ntraining,1,2\n", "training,0,0,1\n" * 4]
)
def test_a_damaged_plane_is_none(damage: str, tmp_path: Path) -> None:
    file = tmp_path / "landscape-plane.csv"
    file.write_text(damage)
    assert Plane.read(file) is None
    whole = plane(1.0).splitlines()
    file.write_text("\n".join(whole[:-3]))
    assert Plane.read(file) is None, "a corner is missing"
