"""LARC: the layer-wise rates of You, Gitman, Ginsburg, "Large Batch Training of Convolutional Networks", 2017
(arXiv:1708.03888), around any optimizer, as NVIDIA's apex has them.

    lambda = trust |w| / (|g| + weight_decay |w|)    for each parameter tensor w and its gradient g
    clip:   g <- min(lambda / lr, 1) (g + weight_decay w)      the rate is lr, and lambda at most
    scale:  g <- lambda (g + weight_decay w)                   the rate is lr lambda
    then the base's step with g

The base's weight decay enters here, before the factor, and the base adds none, unless it decays the weights themselves,
as adamw does. A tensor whose weights or gradients are all zero has the factor 1, as in apex. Near an optimum the factor
of clip is 1; scale takes steps whose length does not shrink, so that it stops nowhere at a constant rate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from fedopt.optimizers.base import Gradient, LaneOptimizer, Optimizer, is_row
from fedopt.optimizers.layerwise import scale_tensors, trust_ratios
from fedopt.optimizers.wrapper import Wrapper, WrapperLanes
from fedopt.schedules.base import Rate
from fedopt.vectors.layout import RowLayout


class Larc(Wrapper):
    moves_theta: ClassVar[bool] = False

    trust: float = Field(0.02, gt=0)
    """How far a tensor may move in a step, in units of its norm, with a gradient of whatever size."""
    mode: Literal["clip", "scale"] = "clip"
    """Whether the layer-wise rate bounds the learning rate, or multiplies it."""
    skip_vectors: bool = False
    """Whether vectors and scalars, as biases and the scales of norms, keep the plain rate."""

    if TYPE_CHECKING:

        def __init__(self, **keys: Any) -> None: ...

    def build(self, theta: Tensor, layout: RowLayout) -> LaneOptimizer:
        decay = self.added_decay
        base: Optimizer = self.base.model_copy(update={"weight_decay": 0.0}) if decay else self.base
        return LarcLanes(theta, base.build(theta, layout), self, layout)

    @property
    def added_decay(self) -> float:
        """The base's weight decay, if it is added to the gradient."""
        return 0.0 if self.base.is_decoupled else getattr(self.base, "weight_decay", 0.0)

    @property
    def takes_group_decay(self) -> bool:
        return self.base.is_decoupled and self.base.takes_group_decay  # other decay enters the layer-wise rate

    @property
    def vectors_touched(self) -> int:
        return self.base.vectors_touched + 1


class LarcLanes(WrapperLanes):
    def __init__(self, theta: Tensor, base: LaneOptimizer, settings: Larc, layout: RowLayout) -> None:
        super().__init__(theta, base)
        self._settings, self._layout = settings, layout
        self._rate: Rate = 0.0

    def step(self, gradient: Gradient) -> None:
        self._rate = self.next_rate()
        self._base.step(_Scaled(gradient, self))

    def scaled(self, gradient: Gradient) -> Tensor:
        """The gradient with weight decay, each of its tensors times its factor."""
        settings, layout, decay = self._settings, self._layout, self._settings.added_decay
        found = gradient()
        ratios = trust_ratios(self.active, found, layout, settings.trust, decay, settings.skip_vectors)
        if settings.mode == "clip":
            rates = layout.views(self._rate) if is_row(self._rate) else {}
            ratios = {
                name: (ratio / _alike(rates.get(name, self._rate), ratio)).clamp_(max=1.0)
                for name, ratio in ratios.items()
            }
        found = found.add(self.active, alpha=decay)
        scale_tensors(found, ratios, layout)
        return found


def _alike(rate: Rate, ratio: Tensor) -> Rate:
    """A parameter's rate, or each lane's, with as many dimensions as the parameter's ratio [active, 1, ...]."""
    if not isinstance(rate, Tensor) or rate.ndim == 0:
        return rate
    return rate.reshape(len(rate), -1)[:, 0].view(-1, *[1] * (ratio.ndim - 1))


class _Scaled(Gradient):
    def __init__(self, gradient: Gradient, lanes: LarcLanes) -> None:
        self._gradient, self._lanes = gradient, lanes

    def __call__(self) -> Tensor:
        return self._lanes.scaled(self._gradient)

    def add_to(self, target: Tensor, keep: float, scale: float) -> None:
        found = self()
        target[: len(found)].mul_(keep).add_(found, alpha=scale)

    def add_to_theta(self, scale: float) -> None:
        self.add_to(self._lanes.theta, 1.0, scale)
