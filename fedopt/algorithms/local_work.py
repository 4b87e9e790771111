"""What an algorithm sees of a client's local work, and what it makes of it.

Vectors are rows [lanes, Q], clients side by side: each parameter starts at an aligned place of its row, and the gaps
between parameters hold zeros. `layout` maps rows to flat vectors [lanes, P] without gaps and to named tensors. Count,
rank, mask or add noise on these: entries of a gap are no entries of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from torch import Tensor

from fedopt.optimizers.base import Optimizer
from fedopt.schedules.base import Rate
from fedopt.vectors.layout import RowLayout, Vectors

T = TypeVar("T")


class OnDemand(Generic[T]):
    """A value that is computed when it is first asked for."""

    def __init__(self, compute: Callable[[], T]) -> None:
        self._compute, self._values = compute, list[T]()

    def __call__(self) -> T:
        if not self._values:
            self._values.append(self._compute())
        return self._values[0]

    @property
    def known(self) -> T | None:
        """The value if it has been computed, and else None."""
        return self._values[0] if self._values else None


@dataclass(frozen=True)
class LocalStart:
    """What a round of local work begins with, as `Algorithm.start` and `begin` see it."""

    x: Tensor
    """The model that came down, [Q]."""
    down: Vectors
    """What came down beside x, [Q] each."""
    state: Vectors
    """What each client kept from its last accepted round, [lanes, Q] each."""
    steps: Tensor
    """Steps that each lane will take, [lanes]."""
    samples: Tensor
    """n_i of each lane's client, [lanes]."""
    rates: Sequence[float]
    """The learning rate of each step of the round; a lane with fewer steps uses the first of them."""
    full_gradient: OnDemand[Tensor]
    """Gradients at x over all of each client's data, [lanes, Q]; costs a pass over them, the first time."""
    layout: RowLayout
    """Which entries of a row are which parameters'."""


class MinibatchGradient(Protocol):
    """Raw gradients at any points on a step's minibatch, as `Algorithm.gradient` sees them."""

    rate: Rate
    """The learning rate of this step."""
    is_first: bool
    """Whether this is the step's first evaluation: an optimizer such as SAM asks for a second one."""

    def __call__(self, point: Tensor) -> Tensor:
        """The raw gradient at a point [lanes, Q] or [Q], [lanes, Q]."""
        ...


@dataclass(frozen=True)
class LocalWork:
    """One round's local work on lanes, as `Algorithm.finish` sees it."""

    x: Tensor
    """The model that came down, [Q]."""
    y: Tensor
    """Where each lane's steps led, [lanes, Q]; later work overwrites it, so send or keep a copy."""
    displacement: Tensor
    """y - x, [lanes, Q]."""
    state: Vectors
    """What each client kept from its last accepted round, [lanes, Q] each."""
    steps: Tensor
    """Steps that each lane took, [lanes]."""
    samples: Tensor
    """n_i of each lane's client, [lanes]."""
    rates: Tensor
    """Sum of the learning rates of these steps, [lanes]."""
    mean_gradient: Tensor | None
    """Mean of the raw gradients that drove these steps, [lanes, Q]; None unless `needs_mean_gradient`."""
    full_gradient: OnDemand[Tensor]
    """Gradients at x over all of each client's data, [lanes, Q]; costs a pass over them, the first time. In rounds that
    measure gradients they are known already."""
    full_loss: OnDemand[Tensor]
    """Mean losses at x over all of each client's data, [lanes]; costs a pass over them, the first time."""
    layout: RowLayout
    """Which entries of a row are which parameters'."""
    optimizer: Optimizer | None = None
    """The settings of what took the steps; None in a training loop of the user's own."""
    step_rates: Sequence[float] = ()
    """The learning rate of each step of the round; a lane with fewer steps used the first of them."""
    down: Vectors = field(default_factory=dict)
    """What came down beside x, [Q] each."""
    prepared: Vectors = field(default_factory=dict)
    """What `begin` made for the steps, and what `gradient` made of it."""
    moments: Vectors = field(default_factory=dict)
    """The optimizer's moments after the steps, by its own names, [lanes, Q] each; the next round overwrites them."""


@dataclass(frozen=True)
class Finished:
    """What `finish` returns: what travels up, and what the client keeps."""

    up: Vectors
    """[lanes, Q] each: just the names that `sends_up` declares."""
    state: Vectors = field(default_factory=dict)
    """The client's new state, [lanes, Q] each: the names of `client_state`."""
    numbers: Mapping[str, Tensor] = field(default_factory=dict)
    """Scalars [lanes]: those of `sends_numbers`, and fields of the algorithm's `record`. A record's number that is not
    finite is left out."""
