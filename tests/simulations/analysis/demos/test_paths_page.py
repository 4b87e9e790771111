"""The page of `fedopt demo paths` computes in JavaScript what fedopt's optimizers do; here in V8, without a browser."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from simulations.analysis.demos import paths
from simulations.analysis.demos.paths_page import page
from simulations.analysis.demos.paths_page.choices import CHOICES, SLIDERS
from simulations.analysis.demos.surfaces import SURFACES
from simulations.report.assets import asset
from tests.commands import fedopt
from tests.javascript import evaluated
from tests.simulations.analysis.demos.paths_in_python import CHAOTIC, changed_jobs, check, noise, usual_jobs


@cache
def scripts() -> str:
    return "\n".join(asset("simulations.analysis.demos.paths_page", name) for name in page.COMPUTING)


MEASURED = """
function measured(surface, w) {
  const { value, gradient, hessian } = SURFACES[surface];
  return [value(w), ...gradient(w), ...hessian(w), largestCurvature(hessian(w))];
}
"""


def in_v8(expression: str, given: object) -> Any:
    return json.loads(
        evaluated(f"{scripts()}{MEASURED}const given = {json.dumps(given)};\nJSON.stringify({expression})")
    )


def test_all_paths_begin_as_those_of_python() -> None:
    """Their whole length is compared in the browser."""
    jobs = usual_jobs(40)
    check(jobs, in_v8("given.map((job) => descend(...job))", [job.arguments for job in jobs]))


def test_every_setting_and_the_noise_have_the_effect_that_they_have_in_python() -> None:
    jobs = changed_jobs()
    check(jobs, in_v8("given.map((job) => descend(...job))", [job.arguments for job in jobs]))


@pytest.mark.parametrize(("surface", "optimizer"), CHAOTIC)
def test_the_paths_with_a_wider_bound_are_chaotic_in_python_too(surface: str, optimizer: str) -> None:
    (job,) = (job for job in usual_jobs() if (job.surface, job.optimizer) == (surface, optimizer))
    moved = job.path(moved=1e-15)
    assert (moved - job.path()).abs().max() > 1e-10, "a last digit of the start grows 10,000-fold or more"


def test_noise_is_that_of_the_published_generator() -> None:
    for seed in (0, 1, 9999):
        assert in_v8("noiseOf(...given)", [seed, 50, 0.3]) == [
            pytest.approx(pair, rel=1e-12) for pair in noise(seed, 50, 0.3)
        ]
    many = np.array(noise(3, 20_000, 2.0))
    assert many.mean(0) == pytest.approx([0, 0], abs=0.06)
    assert np.cov(many.T) == pytest.approx(np.diag([4, 4]), abs=0.15)


@pytest.mark.parametrize("name", SURFACES)
def test_surfaces_have_python_s_values_and_the_derivatives_of_autograd(name: str) -> None:
    surface, (left, right, bottom, top) = SURFACES[name], SURFACES[name].window
    points = np.random.default_rng(0).uniform([left, bottom], [right, top], (40, 2)).tolist()
    found = in_v8(f"given.map((w) => measured({json.dumps(name)}, w))", points)
    for (value, g1, g2, h11, h12, h22, largest), point in zip(found, points, strict=True):
        w = torch.tensor(point, dtype=torch.float64)
        hessian = torch.func.hessian(surface.at)(w)
        assert value == pytest.approx(surface.at(w).item(), rel=1e-12, abs=1e-12)
        assert [g1, g2] == pytest.approx(torch.func.grad(surface.at)(w).tolist(), rel=1e-10, abs=1e-10)
        assert [h11, h12, h12, h22] == pytest.approx(hessian.flatten().tolist(), rel=1e-10, abs=1e-10)
        assert largest == pytest.approx(torch.linalg.eigvalsh(hessian)[1].item(), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("name", SURFACES)
def test_no_point_is_below_the_lowest_loss(name: str) -> None:
    surface = SURFACES[name]
    losses = [
        minimize(lambda w: surface.at(torch.tensor(w, dtype=torch.float64)).item(), start, tol=1e-12).fun
        for start in surface.minima
    ]
    assert page.lowest(surface) == pytest.approx(min(losses), abs=1e-9)
    left, right, bottom, top = surface.window
    points = np.random.default_rng(1).uniform([left, bottom], [right, top], (5000, 2))
    assert surface.at(torch.from_numpy(points)).min().item() >= page.lowest(surface)


def test_a_path_that_leaves_the_bounds_diverges_at_that_step() -> None:
    losses = [0.5 * (16 * 0.9 ** (2 * k) + 25 * 1.5 ** (2 * k)) for k in range(81)]  # the closed form at rate 0.1
    first = next(k for k, loss in enumerate(losses) if loss > 1e6 * (1 + losses[0]))
    expression = 'ending("quadratic", descend("quadratic", "gd", { lr: given }, [-4, 1], 80))'
    assert in_v8(expression, 0.1)["diverges"] == first
    calm = in_v8(expression, 0.04)
    assert "diverges" not in calm
    assert calm["point"] == pytest.approx([-4 * 0.96**80, 0], abs=1e-12)


def test_contours_are_ellipses_where_the_surface_is_quadratic() -> None:
    left, right, bottom, top = SURFACES["quadratic"].window
    found = in_v8('contours("quadratic", given)', [left, right, bottom, top])
    assert len(found) == 16
    interpolation = ((7 / 140) ** 2 + 25 * (3.4 / 140) ** 2) / 8  # h' H h / 8 along the longest side of a triangle
    for contour in found:
        for line in contour["lines"]:
            w1, w2 = np.array(line).T
            assert np.abs(0.5 * (w1**2 + 25 * w2**2) - contour["level"]).max() < 1.01 * interpolation
            is_closed = line[0] == line[-1]
            ends = np.array([line[0], line[-1]])
            at_edge = np.isclose(ends, [left, bottom]).any(1) | np.isclose(ends, [right, top]).any(1)
            assert is_closed or at_edge.all()


@pytest.mark.parametrize("name", SURFACES)
def test_the_page_has_every_optimizer_of_the_figure_with_its_rate(name: str) -> None:
    surface = SURFACES[name]
    there = []
    for choice in CHOICES.values():
        settings = dict(choice.settings(surface))
        there.append((settings.pop("lr"), choice.optimizer(**settings)))
    missing = [
        arm.label for arm in paths.arms(surface) if arm.panel != "step size" and (arm.lr, arm.optimizer) not in there
    ]
    assert missing == []


def test_defaults_are_within_their_bounds() -> None:
    for surface in SURFACES.values():
        for choice in CHOICES.values():
            for key, value in choice.settings(surface).items():
                assert key == "lr" or SLIDERS[key].low <= value <= SLIDERS[key].high


def test_the_command_writes_a_page_that_needs_nothing_else(tmp_path: Path) -> None:
    done = fedopt("demo", "paths", "saddle", "--steps", "2", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path / 'paths.html'}: a page" in done.stdout
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["paths-saddle.csv", "paths-saddle.json", "paths-saddle.pdf", "paths-saddle.svg", "paths.html"]
    text = (tmp_path / "paths.html").read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\s\"'`]*", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<link(?! rel=\"icon\")|\bsrc=|@import|\{\{", text)
    data = json.loads(text.split('<script type="application/json" id="data">')[1].split("</script>")[0])
    assert data["chosen"] == "saddle"
    assert data["surfaces"].keys() == SURFACES.keys()
    assert data["optimizers"].keys() == CHOICES.keys()
