"""The experiment's [server] section: how the server's rate, algorithm.server_lr, changes over the rounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, Field

from fedopt.composite import Composite, FamilyField
from fedopt.schedules import SCHEDULES
from fedopt.schedules.base import Schedule
from fedopt.schedules.constant import Constant
from fedopt.schedules.plan import RatePlan, with_horizon


class ServerSettings(Composite):
    families: ClassVar[tuple[FamilyField, ...]] = (FamilyField("schedule", "schedule", SCHEDULES, "constant"),)

    schedule: Schedule = Constant()
    """How algorithm.server_lr changes over the rounds."""
    warmup: int = Field(0, ge=0)
    """The first rounds, in which the rate rises in a straight line before the schedule starts."""

    if TYPE_CHECKING:

        def __init__(self, **keys: Any) -> None: ...

    def plan(self, server_lr: float) -> RatePlan:
        return RatePlan(server_lr, self.schedule, self.warmup)

    def completed(self, rounds: int) -> ServerSettings:
        """With the defaults that follow from other sections."""
        schedule = with_horizon(self.schedule, self.warmup, rounds)
        return self if schedule is self.schedule else BaseModel.model_copy(self, update={"schedule": schedule})
