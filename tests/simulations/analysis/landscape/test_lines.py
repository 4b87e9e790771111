"""Lines between models and their barriers, on losses that are known everywhere."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from simulations.analysis.landscape.barrier_figures import BarriersPart
from simulations.analysis.landscape.barriers import Pair, mean_model, pairs
from simulations.analysis.landscape.line_figures import Ends, LinesPart
from simulations.analysis.landscape.lines import Line, places_on, points_between
from simulations.analysis.runs.evaluation import Evaluation
from tests.simulations.analysis.landscape.known import Cliff, TwoWells, objective, point, silent

WELLS = Evaluation({"training": objective(TwoWells())}, torch.float64, threads=2)


def line(start: Tensor, end: Tensor, points: int, beyond: float) -> Line:
    places = places_on(points, beyond)
    return Line(places, WELLS.at(points_between(start, end, places), ["training"], silent))


def test_the_barrier_between_two_wells_is_the_hill_between_them() -> None:
    found = line(point(-1, 0), point(1, 0), 21, 0.25)
    assert found.places == pytest.approx([-0.25 + 0.05 * place for place in range(31)])
    expected = [((2 * place - 1) ** 2 - 1) ** 2 for place in found.places]
    assert found.losses["training"] == pytest.approx(expected, abs=1e-12)
    assert found.barrier("training") == pytest.approx(1), "at (0, 0)"
    straight = line(point(1, -1), point(1, 1), 11, 0.0)
    assert straight.places == pytest.approx([0.1 * place for place in range(11)])
    assert straight.barrier("training") == 0, "a valley has none"
    raised = line(point(-1, 2), point(1, 0), 5, 0.0)
    # at the middle (0, 1): 1 + 3, where the straight line is at 6
    assert raised.barrier("training") == 0


def test_a_barrier_with_a_loss_that_is_not_finite_is_unknown() -> None:
    places = places_on(5, 0.25)
    inside = Line(places, {"training": [0.0, 0.0, 1.0, math.nan, 1.0, 0.0, 0.0]})
    outside = Line(places, {"training": [math.inf, 0.0, 1.0, 2.0, 1.0, 0.0, math.nan]})
    assert (inside.barrier("training"), inside.gaps("training")) == (None, 1)
    assert (outside.barrier("training"), outside.gaps("training")) == (2.0, 2)


def test_lines_are_evaluated_as_one_part_with_their_distances() -> None:
    ends = [Ends(point(-1, 0), point(1, 0), "a", "b"), Ends(point(1, 0), point(1, 3), "b", "c")]
    part = LinesPart("runs/x", ends, ["training"], 5, {})
    (result,) = part.results([WELLS.at(work.points, work.names, silent) for work in part.works()])
    assert result.numbers["distances"] == {"a to b": 2.0, "b to c": 3.0}
    assert result.numbers["barriers"] == {"a to b": {"training": 1.0}, "b to c": {"training": 0.0}}
    assert result.compared == {"training barrier, a to b": 1.0, "training barrier, b to c": 0.0}
    assert len(result.rows) == 2 * 7
    assert result.rows[0] == ("a to b", "training", -0.25, -0.5, pytest.approx((1.5**2 - 1) ** 2))
    assert result.figure().axes[0].get_xlabel() == "share of the way, which is 2 long"


def test_barriers_between_the_models_of_a_double_well_and_to_their_mean() -> None:
    """In closed form: between (u, 0) and (v, 0) the loss at w is (w^2 - 1)^2, which the straight line lies below."""
    at = {"client 0": -1.0, "client 1": 1.0, "client 2": 0.5}
    models, weights = {name: point(w1, 0) for name, w1 in at.items()}, [1.0, 1.0, 2.0]
    part = BarriersPart("runs/x", models, weights, ["training"], 201, {})
    (result,) = part.results([WELLS.at(work.points, work.names, silent) for work in part.works()])
    places = torch.linspace(0, 1, 201, dtype=torch.float64)

    def barrier(u: float, v: float) -> float:
        def loss(w: Tensor) -> Tensor:
            return (w**2 - 1) ** 2

        rise = loss(u + places * (v - u)) - (1 - places) * loss(point(u)) - places * loss(point(v))
        return max(0.0, float(rise.max()))

    mean = (-1 + 1 + 2 * 0.5) / 4
    ends = list(at.values())
    expected = [[barrier(u, v) if u != v else 0.0 for v in ends] for u in ends]
    found = result.numbers["barriers"]
    assert isinstance(found, dict)
    torch.testing.assert_close(torch.tensor(found["training"]), torch.tensor(expected), atol=1e-6, rtol=1e-6)
    assert found["training"][0][1] == pytest.approx(1)
    to_mean = result.numbers["to the mean model"]
    assert isinstance(to_mean, dict)
    assert to_mean["training"] == pytest.approx([barrier(u, mean) for u in ends])
    average = (expected[0][1] + expected[0][2] + expected[1][2]) / 3
    assert result.numbers["mean barrier"] == {"training": pytest.approx(average)}
    assert result.compared == {
        "training barrier between clients": pytest.approx(average),
        "training barrier to their mean": pytest.approx(sum(barrier(u, mean) for u in ends) / 3),
    }
    assert "at most 1, between client 0 and client 1" in result.findings[0]
    assert len(result.rows) == 3 + 3
    assert len(result.figure().axes) == 2, "a map and its color bar"


def test_pairs_are_those_of_all_models_and_of_each_with_the_mean() -> None:
    assert pairs(3) == [Pair(0, 1), Pair(0, 2), Pair(1, 2), Pair(0, None), Pair(1, None), Pair(2, None)]
    assert torch.equal(mean_model([point(1, 0), point(5, 4)], [3.0, 1.0]), point(2, 1))


def test_barriers_that_are_unknown_are_said_and_drawn_as_gaps() -> None:
    cliff = Evaluation({"training": objective(Cliff())}, torch.float64, threads=1)
    models = {"client 0": point(1, 0), "client 1": point(4, 0), "client 2": point(-3, 0)}
    part = BarriersPart("runs/x", models, [3.0, 1.0, 1.0], ["training"], 11, {})  # the mean is (0.8, 0)
    (result,) = part.results([cliff.at(work.points, work.names, silent) for work in part.works()])
    between = result.numbers["barriers"]
    assert isinstance(between, dict)
    assert between["training"][0][2] is None
    assert between["training"][0][1] is not None
    assert result.findings[-1] == "training loss: not finite on the way of 3 pairs, which are gaps in the figure"
    result.figure()
