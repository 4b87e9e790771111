"""One round of an algorithm over a federation, as the run's loop plays it."""

from __future__ import annotations

from fedopt.algorithms.base import Algorithm
from fedopt.drift.measuring import NO_MEASURES, MeasurePlan
from fedopt.round.admission import NO_BOUNDS
from fedopt.round.federation import Federation
from fedopt.round.loop import Rounds, RoundWork, Rules
from fedopt.round.method import Method
from fedopt.round.plausibility import Bounds
from fedopt.round.selection import Terms
from fedopt.round.state import ServerState


def play_round(
    state: ServerState,
    algorithm: Algorithm,
    federation: Federation,
    terms: Terms,
    *,
    plan: MeasurePlan = NO_MEASURES,
    bounds: Bounds = NO_BOUNDS,
) -> tuple[ServerState, RoundWork]:
    """The state after one more round with seed 0, and its outcome."""
    return Rounds(Method(algorithm), federation, Rules(terms, 0, bounds), lambda round_: plan).play_one(state)
