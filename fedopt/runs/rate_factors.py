"""What the rates of a round are multiplied by, under schedules that follow the test loss."""

from __future__ import annotations

from collections.abc import Iterable

from fedopt.experiment.experiment import Experiment
from fedopt.runs.history import RoundRecord
from fedopt.schedules.plan import NO_FACTORS, RateFactors


def follows_loss(experiment: Experiment) -> bool:
    """Whether the rates of a round depend on test losses of the rounds before."""
    return experiment.local.schedule.follows_loss or experiment.server.schedule.follows_loss


def factors_after(experiment: Experiment, records: Iterable[RoundRecord]) -> RateFactors:
    """Of the rates of the round after these."""
    if not follows_loss(experiment):
        return NO_FACTORS
    every = experiment.run.eval_every  # the last round of a run that goes on is evaluated out of turn
    evaluated = (record.test_loss for record in records if record.round % every == 0)
    losses = [loss for loss in evaluated if loss is not None]
    local, server = experiment.local.schedule, experiment.server.schedule
    return RateFactors(local.factor_after(losses), server.factor_after(losses))
