"""The contract of a local optimizer: its settings, the facts that others need, and its steps on lanes.

A new optimizer is two classes in a file of its own, and an entry in the folder's registry. An `Optimizer` is the
settings; its `build` makes a `LaneOptimizer`, which steps all lanes of theta [lanes, Q] at once. A lane's result must
not depend on the lanes beside it, so elementwise operations and norms over single rows are what it may use.

    class SignSgd(Optimizer):
        def build(self, theta: Tensor, layout: RowLayout) -> LaneOptimizer:
            return SignSgdLanes(theta)

    class SignSgdLanes(LaneOptimizer):
        def step(self, gradient: Gradient) -> None:
            subtract(self.active, self.next_rate(), gradient().sign())
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Protocol, TypeGuard

import torch
from pydantic import Field
from torch import Tensor, nn

from fedopt.family import Family
from fedopt.optimizers import OPTIMIZERS
from fedopt.registry import Registry
from fedopt.schedules.base import Rate, Rates
from fedopt.vectors.layout import RowLayout

Batches = Literal["any", "full", "single"]

Decay = Annotated[float, Field(ge=0, lt=1)]


class Gradient(Protocol):
    """The corrected gradient at the present contents of theta, on this step's minibatch."""

    def __call__(self) -> Tensor:
        """[active, Q]; the next evaluation may overwrite it."""
        ...

    def add_to(self, target: Tensor, keep: float, scale: float) -> None:
        """target <- keep * target + scale * gradient, for the active lanes of target [lanes, Q], which is not theta.

        It often needs no tensor for the gradient, which is most of the cost of a step of a small model.
        """
        ...

    def add_to_theta(self, scale: float) -> None:
        """theta <- theta + scale * gradient, for the active lanes."""
        ...

    def perturbed(self, rho: float) -> Gradient | None:
        """The gradient at theta + rho g / |g|, where g is this one, without moving theta; None if theta must move."""
        return None

    def hessian(self, lane: int) -> Tensor:
        """The derivative of the corrected gradient where this one was evaluated last, [P, P], of one active lane; for
        optimizers that declare `needs_hessian`."""
        raise TypeError(f"{type(self).__name__} has no Hessian")

    def kronecker_inverse(self, lane: int, damping: float) -> Callable[[Tensor], Tensor]:
        """v [P] -> (F + damping I)^-1 v with the Kronecker-factored Fisher matrix F of the minibatch at theta, of one
        active lane; for optimizers that declare `needs_kronecker`."""
        raise TypeError(f"{type(self).__name__} has no factors")

    def samples(self) -> Samples:
        """The samples of this step; for optimizers whose `batches` are "single"."""
        raise TypeError(f"{type(self).__name__} does not know its samples")


@dataclass(frozen=True)
class Samples:
    """Where the minibatches of the active lanes, one sample each, lie in their clients' data."""

    positions: Tensor
    """From 0 to the client's size, int64 [active]."""
    sizes: Sequence[int]
    """The numbers of samples of all lanes of the round."""


class LaneOptimizer(ABC):
    """Steps theta [lanes, Q] in place. It serves all rounds; the last gradient of a step is the one it steps with."""

    recordable: bool = True
    """Whether everything that a step reads and writes keeps its place in memory, so that steps can be recorded."""

    def __init__(self, theta: Tensor) -> None:
        self.theta = theta
        self.active = theta
        """The lanes that still take steps, [active, Q]: a part of theta."""
        self.lanes = len(theta)
        """The number of lanes in this round."""
        self._rates, self._step = Rates((), theta.dtype), 0

    def begin(self, lanes: int, rates: Rates) -> None:
        """Starts a round of the first `lanes` lanes; moments are zero."""
        self.active, self.lanes = self.theta[:lanes], lanes
        self._rates, self._step = rates, 0

    @abstractmethod
    def step(self, gradient: Gradient) -> None:
        """Takes one step. It must ask `next_rate` once, and keep no rate beyond the step."""

    def shrink(self, lanes: int) -> None:
        """Goes on with the first `lanes` lanes; the others have taken all their steps."""
        self.active = self.theta[:lanes]

    @property
    def moments(self) -> Mapping[str, Tensor]:
        """Its state by name, [lanes, Q] each, for all lanes of the round; a lane that has finished keeps its own."""
        return {}

    def load_moments(self, moments: Mapping[str, Tensor]) -> None:
        """Replaces the moments, all of them, between `begin` and the first step; [lanes, Q] each."""
        if moments:
            raise ValueError(f"{type(self).__name__} has no moments, and got {', '.join(moments)}")

    def load_second_moments(self, moments: Mapping[str, Tensor]) -> None:
        """Replaces the second moment alone, by its `second_moment_names`, between `begin` and the first step; the first
        moment and its count of steps stay at zero."""
        raise ValueError(f"{type(self).__name__} has no second moment")

    def next_rate(self) -> Rate:
        """The rate of this step."""
        self._step += 1
        return self._rates.at(self._step - 1)


class Optimizer(Family, ABC):
    """Base of all local optimizers; its fields are keys of the experiment's [local] section."""

    registry: ClassVar[Registry] = OPTIMIZERS
    refuses_misspelled_hooks: ClassVar[bool] = True
    is_decoupled: ClassVar[bool] = False
    """Whether weight decay shrinks theta itself and is not added to the gradient."""
    can_be_base: ClassVar[bool] = True
    """Whether a wrapper, as sam, may be put around it."""
    batches: ClassVar[Batches] = "any"
    """Minibatches that its steps must be of: any, all of the client's samples, or one sample."""
    needs_hessian: ClassVar[bool] = False
    """Whether its steps ask for the gradient's `hessian`."""
    needs_kronecker: ClassVar[bool] = False
    """Whether its steps ask for the gradient's `kronecker_inverse`."""

    @abstractmethod
    def build(self, theta: Tensor, layout: RowLayout) -> LaneOptimizer:
        """The optimizer for theta [lanes, Q]; `layout` says where the parameters are in a row."""

    @property
    def is_plain_descent(self) -> bool:
        """Whether a step is theta <- theta - lr g and nothing else. SCAFFOLD then needs no sum of gradients."""
        return False

    @property
    def decays_weights(self) -> bool:
        """Whether a weight changes in a step in which its gradient is zero."""
        return False

    @property
    def moves_first(self) -> bool:
        """Whether a step moves theta before it asks for its gradient. Wrappers that move theta too refuse it."""
        return False

    @property
    def takes_groups(self) -> bool:
        """Whether the entries of theta may have rates of their own (`local.groups`): `next_rate` is then a row [1, Q].
        They may unless a step is the solution for all parameters together, as Newton's."""
        return True

    @property
    def takes_group_decay(self) -> bool:
        """Whether the optimizer may be built with a weight_decay of 0, and parameters decay around it, each at its own:
        in the gradient, or apart from it if `is_decoupled`."""
        return "weight_decay" in type(self).model_fields

    @property
    def starts_anew(self) -> bool:
        """Whether it has a state that cannot outlive a round: `local.state` must then be reset."""
        return False

    @property
    def moment_names(self) -> tuple[str, ...]:
        """The names of the lane optimizer's `moments`."""
        return ()

    @property
    def second_moment_names(self) -> tuple[str, ...]:
        """Which of `moment_names` are the running mean of squared gradients, and the count of steps in it."""
        return ()

    @property
    def vectors_touched(self) -> int:
        """How many vectors [Q] of a lane a step reads or writes, beside theta and the gradient."""
        return 2

    def accumulated(self, rates: Sequence[float], proximal: float = 0.0) -> float | None:
        """How far steps at these rates move theta against a gradient that is 1 at every step, plus `proximal` times how
        far theta has moved: the weights, added up, of the gradients in a displacement. Moments start at zero, and
        weight decay counts as a part of the gradient. None where a displacement is no sum of weighted gradients, as
        under Adam."""
        return None

    @property
    def title(self) -> str:
        """The name, for one line about an experiment; a wrapper adds the optimizer that it wraps."""
        return self.name

    def torch_optimizer(self, parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer | None:
        """The same optimizer in torch.optim, for the benchmark's plain loop and for tests; None if there is none."""
        return None

    @property
    def usual_lr(self) -> float | None:
        """A learning rate that is common with it, where that is far from the default of `local.lr`, which suits SGD."""
        return None

    def advice(self) -> list[str]:
        """Sentences about settings that are probably not what the user wants."""
        return []


def is_row(rate: Rate) -> TypeGuard[Tensor]:
    """Whether the entries of a lane have rates of their own, [1, Q]; lanes may also have one each, [lanes, 1]."""
    return isinstance(rate, Tensor) and rate.ndim > 0 and rate.shape[-1] > 1


def subtract(target: Tensor, rate: Rate, direction: Tensor) -> None:
    """target <- target - rate * direction."""
    if isinstance(rate, Tensor):
        target.addcmul_(direction, rate, value=-1.0)
    else:
        target.add_(direction, alpha=-rate)


def subtract_quotient(target: Tensor, rate: Rate, numerator: Tensor, denominator: Tensor) -> None:
    """target <- target - rate * numerator / denominator, in one pass over memory where lanes have one rate; `numerator`
    may be overwritten."""
    if isinstance(rate, Tensor):
        target.addcdiv_(numerator.mul_(rate), denominator, value=-1.0)
    else:
        target.addcdiv_(numerator, denominator, value=-rate)
