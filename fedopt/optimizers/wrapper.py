"""Optimizers around another one: `local.base` is any optimizer that is no wrapper itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import model_validator
from torch import Tensor

from fedopt.composite import Composite, FamilyField
from fedopt.optimizers import OPTIMIZERS
from fedopt.optimizers.base import LaneOptimizer, Optimizer
from fedopt.schedules.base import Rates
from fedopt.section import wrong


class Wrapper(Composite, Optimizer):
    """An optimizer whose steps a base takes; what the base says about itself holds for both."""

    families: ClassVar[tuple[FamilyField, ...]] = (FamilyField("base", "base", OPTIMIZERS, "sgd"),)
    moves_theta: ClassVar[bool] = True
    """Whether it moves theta itself. Then the base may not move it before it asks for a gradient."""

    base: Optimizer
    """The optimizer that takes the steps."""

    if TYPE_CHECKING:

        def __init__(self, **keys: Any) -> None: ...

    @model_validator(mode="after")
    def _base_fits(self) -> Self:
        if not self.base.can_be_base:
            raise wrong("base", f"{self.base.title} takes steps that {self.name} cannot be put around; choose another")
        if self.moves_theta and self.base.moves_first:
            told = f"{self.name} moves the weights around a step of its base, and {self.base.title} within it"
            other = 'leave out nesterov_form = "look-ahead"' if self.base.name == "sgd" else "choose another base"
            raise wrong("base", f"{told}; {other}")
        return self

    @property
    def decays_weights(self) -> bool:
        return self.base.decays_weights

    @property
    def moves_first(self) -> bool:
        return self.base.moves_first

    @property
    def takes_groups(self) -> bool:
        return self.base.takes_groups

    @property
    def takes_group_decay(self) -> bool:
        return self.base.takes_group_decay

    @property
    def starts_anew(self) -> bool:
        return self.base.starts_anew

    @property
    def moment_names(self) -> tuple[str, ...]:
        return self.base.moment_names

    @property
    def second_moment_names(self) -> tuple[str, ...]:
        return self.base.second_moment_names

    @property
    def usual_lr(self) -> float | None:
        return self.base.usual_lr

    @property
    def title(self) -> str:
        return f"{self.name}({self.base.title})"

    def advice(self) -> list[str]:
        return self.base.advice()


class WrapperLanes(LaneOptimizer):
    """Lanes of a base, whose moments are those of both."""

    def __init__(self, theta: Tensor, base: LaneOptimizer) -> None:
        super().__init__(theta)
        self._base = base
        self.recordable = base.recordable

    def begin(self, lanes: int, rates: Rates) -> None:
        super().begin(lanes, rates)
        self._base.begin(lanes, rates)

    def shrink(self, lanes: int) -> None:
        super().shrink(lanes)
        self._base.shrink(lanes)

    @property
    def moments(self) -> Mapping[str, Tensor]:
        return self._base.moments

    def load_moments(self, moments: Mapping[str, Tensor]) -> None:
        self._base.load_moments(moments)

    def load_second_moments(self, moments: Mapping[str, Tensor]) -> None:
        self._base.load_second_moments(moments)
