"""Planes, their coordinates and losses on them, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from fedopt.errors import InvalidExperiment
from fedopt.vectors.layout import Layout
from simulations.analysis.landscape.plane_figures import PlanePart
from simulations.analysis.landscape.planes import (
    Frame,
    Place,
    Plane,
    around,
    filter_normalized,
    principal,
    through,
    window,
)
from simulations.analysis.landscape.view import View
from simulations.analysis.runs.evaluation import Evaluation
from tests.simulations.analysis.landscape.known import Bowl, Cliff, TwoWells, objective, point, silent


def test_a_plane_holds_the_loss_at_every_point() -> None:
    frame = Frame(point(0.5, 0.5), torch.stack([point(0.5, 0.0), point(0.0, 2.0)]))
    across, up = [-1.0, -0.5, 0.0, 0.5, 1.0], [-1.0, -0.5, 0.25]
    evaluation = Evaluation({"training": objective(TwoWells())}, torch.float64, threads=2)
    plane = Plane.of(across, up, evaluation.at(frame.points(across, up), ["training"], silent))
    for b, row in zip(plane.up, plane.losses["training"], strict=True):
        for a, loss in zip(plane.across, row, strict=True):
            w1, w2 = 0.5 + 0.5 * a, 0.5 + 2 * b
            assert loss == pytest.approx((w1**2 - 1) ** 2 + 3 * w2**2)
    assert plane.lowest("training") == (1.0, -0.5), "w1 = 1 and w2 = -0.5; of equal ones the first"
    assert plane.gaps("training") == 0


def test_a_quadratic_on_the_plane_through_three_models_is_its_closed_form() -> None:
    """L(c + Da) = L(c) + a' D (A c - b) + a' D A D' a / 2."""
    source = torch.Generator().manual_seed(0)
    root = torch.randn(7, 7, generator=source, dtype=torch.float64)
    a, b = root @ root.T, torch.randn(7, generator=source, dtype=torch.float64)
    first, second, third = torch.randn(3, 7, generator=source, dtype=torch.float64)
    frame = through(first, second, third)
    d = frame.directions
    torch.testing.assert_close(d @ d.T, torch.eye(2, dtype=torch.float64), atol=1e-14, rtol=0)
    evaluation = Evaluation({"training": objective(Bowl(a, b))}, torch.float64, threads=2)
    across, up = [-1.0, 0.0, 2.5], [-2.0, 3.0]
    plane = Plane.of(across, up, evaluation.at(frame.points(across, up), ["training"], silent))
    at_first = first @ a @ first / 2 - b @ first
    for row, v in enumerate(up):
        for column, u in enumerate(across):
            place = point(u, v)
            expected = at_first + place @ d @ (a @ first - b) + place @ d @ a @ d.T @ place / 2
            assert plane.losses["training"][row][column] == pytest.approx(float(expected), rel=1e-12)


def test_models_have_their_distances_on_the_plane_through_them() -> None:
    source = torch.Generator().manual_seed(1)
    first, second, third, other = torch.randn(4, 9, generator=source, dtype=torch.float64)
    frame = through(first, second, third)
    places = [frame.place(w) for w in (first, second, third)]
    assert places[0] == Place(0.0, 0.0, 0.0)
    assert (places[1].across, places[1].up) == pytest.approx((float((second - first).norm()), 0), abs=1e-12)
    assert max(place.off for place in places) < 1e-12
    assert math.dist((places[1].across, places[1].up), (places[2].across, places[2].up)) == pytest.approx(
        float((third - second).norm())
    )
    assert places[2].up > 0
    off = frame.place(other)
    lifted = other - frame.origin - point(off.across, off.up) @ frame.directions
    assert off.off == pytest.approx(float(lifted.norm()))
    assert float((frame.directions @ lifted).abs().max()) < 1e-12, "what is left is orthogonal to the plane"


def test_a_place_is_found_in_directions_that_are_not_orthogonal() -> None:
    frame = Frame(point(1, 1, 1), torch.stack([point(2, 0, 0), point(1, 1, 0)]))
    assert frame.place(point(1, 1, 1) + 3 * point(2, 0, 0) - 2 * point(1, 1, 0) + point(0, 0, 5)) == Place(3, -2, 5)


@pytest.mark.parametrize(
    ("third", "sentence"), [(point(3, 3, 0), "its three models lie on one line"), (point(0, 0, 0), "lie on one line")]
)
def test_three_models_on_a_line_have_no_plane(third: Tensor, sentence: str) -> None:
    with pytest.raises(InvalidExperiment, match=sentence):
        through(point(0, 0, 0), point(1, 1, 0), third)


def test_two_models_that_are_the_same_have_no_plane() -> None:
    with pytest.raises(InvalidExperiment, match="first two models are the same"):
        through(point(1, 1), point(1, 1), point(0, 1))


def test_filters_of_a_direction_have_the_lengths_of_the_model_s() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(4, 5)).double()
    layout = Layout.of(module)
    w = layout.flatten(module)
    direction = layout.split(filter_normalized(layout, w, torch.Generator().manual_seed(1)))
    for name, own in layout.split(w).items():
        if own.ndim == 1:
            assert not direction[name].any()
        else:
            torch.testing.assert_close(direction[name].flatten(1).norm(dim=1), own.flatten(1).norm(dim=1))
            assert abs(torch.cosine_similarity(direction[name].flatten(), own.flatten(), dim=0)) < 0.6
    frame = around(layout, w, torch.Generator().manual_seed(1))
    assert torch.equal(frame.directions[0], torch.cat([part.flatten() for part in direction.values()]))
    assert torch.equal(frame.origin, w)


def test_a_model_without_filters_has_no_random_plane() -> None:
    layout = Layout.of(TwoWells())
    with pytest.raises(InvalidExperiment, match="--plane random: the model has no matrices"):
        around(layout, point(1, 0), torch.Generator())


def test_a_known_path_has_its_principal_components() -> None:
    """Points c + s u + t v whose (s, t) have no covariance: the components are u and v, the variances those of s, t."""
    u, v = point(3, 4, 0, 0) / 5, point(0, 0, 1, 0)
    s, t = [-6.0, -2.0, 2.0, 6.0], [1.0, -3.0, 3.0, -1.0]
    # sum s t = -6 + 6 + 6 - 6 = 0; variances 20 and 5
    models = [point(9, 8, 7, 6) + a * u + b * v for a, b in zip(s, t, strict=True)]
    frame, explained = principal(models)
    assert explained == pytest.approx((0.8, 0.2))
    torch.testing.assert_close(frame.directions, torch.stack([u, v]), atol=1e-12, rtol=0)
    assert torch.equal(frame.origin, models[-1])
    for model, a, b in zip(models, s, t, strict=True):
        found = frame.place(model)
        assert (found.across, found.up) == pytest.approx((a - 6, b + 1), abs=1e-12)
        assert found.off < 1e-12
    flipped, _ = principal([-model for model in models])
    start = flipped.place(-models[0])
    assert start.across < 0, "a path goes to the right"
    assert start.up > 0


def test_explained_variance_counts_what_lies_off_the_plane() -> None:
    corners = [point(4, 0, 0), point(-4, 0, 0), point(0, 2, 0), point(0, -2, 0), point(0, 0, 1), point(0, 0, -1)]
    frame, explained = principal(corners)
    assert explained == pytest.approx((32 / 42, 8 / 42))
    assert frame.place(corners[4]).off == pytest.approx(2), "the origin is the last model"


def test_a_path_that_stands_still_is_refused() -> None:
    with pytest.raises(InvalidExperiment, match="the run's models are all the same"):
        principal([point(1, 2), point(1, 2), point(1, 2)])


def test_a_window_shows_all_with_a_margin() -> None:
    across, up = window([Place(0, 0, 0), Place(4, 0, 0), Place(1, 0, 3)], 5)
    assert across == pytest.approx([-1, 0.5, 2, 3.5, 5])
    assert up == pytest.approx([-1, -0.5, 0, 0.5, 1]), "where there is no extent, it is 1 to each side"


def view(frame: Frame, across: list[float], up: list[float]) -> View:
    marks = {"final model": Place(0.0, 0.0, 0.0)}
    return View("landscape-plane", "title", frame, across, up, ("x", "y"), marks, has_one_unit=True)


def test_losses_that_are_not_finite_are_gaps_and_said() -> None:
    frame = Frame(point(0, 0), torch.eye(2, dtype=torch.float64))
    evaluation = Evaluation({"training": objective(Cliff())}, torch.float64, threads=1)
    part = PlanePart(view(frame, [-1.0, 0.0, 1.0], [0.0, 2.0]), ["training"], {}, True, {})
    (result,) = part.results([evaluation.at(work.points, work.names, silent) for work in part.works()])
    assert result.findings[-1] == (
        "plane: the training loss is not finite at 2 of 6 points, which are gaps in the figure"
    )
    assert result.rows[0] == ("training", -1.0, 0.0, None)
    assert result.rows[1:3] == [("training", 0.0, 0.0, 0.0), ("training", 1.0, 0.0, 1.0)]
    assert result.numbers["least"] == {"training": (0.0, 0.0)}
    result.figure()


def test_a_plane_without_any_finite_loss_is_still_drawn() -> None:
    frame = Frame(point(-5, 0), torch.eye(2, dtype=torch.float64))
    evaluation = Evaluation({"training": objective(Cliff())}, torch.float64, threads=1)
    part = PlanePart(view(frame, [-1.0, 0.0, 1.0], [0.0, 2.0]), ["training"], {}, True, {})
    (result,) = part.results([evaluation.at(work.points, work.names, silent) for work in part.works()])
    assert result.numbers["least"] == {"training": None}
    result.figure()
