"""torch.optim on lanes: one parameter [lanes, P], one optimizer, clients side by side.

SGD, Adam and AdamW work element by element, so a lane's result is that of torch.optim on the client alone. An
optimizer serves all rounds of its lanes; `begin` makes it new.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from fedopt.optimizers import OPTIMIZERS
from fedopt.optimizers.local import LocalSettings


class Gradient(Protocol):
    """The corrected gradient at the present contents of theta, on this step's minibatch."""

    def __call__(self) -> Tensor:
        """[active, P]; may be overwritten by the next evaluation."""
        ...

    def add_to(self, target: Tensor, keep: float, scale: float) -> None:
        """target <- keep * target + scale * gradient, for the active lanes of target [lanes, P].

        Often without a tensor for the gradient, which is most of what a step of a small model costs.
        """
        ...

    def perturbed(self, rho: float) -> Gradient | None:
        """The gradient at theta + rho g / |g|, where g is this one, without moving theta; None if theta must move."""
        return None


class LaneOptimizer(Protocol):
    """Steps theta [lanes, P] in place. The last gradient it evaluates in a step is the one that drives it."""

    recordable: bool
    """Whether all it keeps stays where it is in memory, whatever begins: only then can its steps be recorded."""

    def begin(self, active: int) -> None:
        """Forgets what was; from here on the first `active` lanes are stepped."""
        ...

    def step(self, gradient: Gradient) -> None: ...

    def shrink(self, active: int) -> None:
        """Goes on with the first `active` lanes; the others have done their work."""
        ...


class Descent:
    """torch.optim.SGD, with heavy-ball momentum or none, whose products go straight into theta or the momentum."""

    recordable = True

    def __init__(self, theta: Tensor, lr: float, momentum: float, weight_decay: float) -> None:
        self._theta, self._active, self._lr = theta, theta, lr
        self._momentum, self._decay = momentum, weight_decay
        # Decay needs the gradient in a buffer too: float32 has too few digits for theta * (1 - lr * decay).
        self._straight = not momentum and not weight_decay
        self._velocity = theta if self._straight else torch.zeros_like(theta)

    def begin(self, active: int) -> None:
        self._active = self._theta[:active]
        if not self._straight:
            self._velocity[:active].zero_()

    def step(self, gradient: Gradient) -> None:
        if self._straight:
            gradient.add_to(self._theta, 1.0, -self._lr)
            return
        gradient.add_to(self._velocity, self._momentum, 1.0)
        velocity = self._velocity[: len(self._active)]
        if self._decay:
            velocity.add_(self._active, alpha=self._decay)
        self._active.add_(velocity, alpha=-self._lr)

    def shrink(self, active: int) -> None:
        self._active = self._theta[:active]


class Nesterov:
    """torch.optim.SGD with nesterov=True: a step goes along the gradient and along the momentum that it has become."""

    recordable = True

    def __init__(self, theta: Tensor, lr: float, momentum: float, weight_decay: float) -> None:
        self._theta, self._active, self._lr = theta, theta, lr
        self._momentum, self._decay = momentum, weight_decay
        self._velocity = torch.zeros_like(theta)

    def begin(self, active: int) -> None:
        self._active = self._theta[:active]
        self._velocity[:active].zero_()

    def step(self, gradient: Gradient) -> None:
        found = gradient()
        if self._decay:
            found = found.add(self._active, alpha=self._decay)
        velocity = self._velocity[: len(self._active)]
        velocity.mul_(self._momentum).add_(found)
        self._active.add_(found.add(velocity, alpha=self._momentum), alpha=-self._lr)

    def shrink(self, active: int) -> None:
        self._active = self._theta[:active]


class TorchStepper:
    """A torch.optim optimizer whose one parameter is theta's active lanes."""

    recordable = False

    def __init__(self, theta: Tensor, make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]) -> None:
        self._theta, self._make = theta, make
        self.begin(len(theta))

    def begin(self, active: int) -> None:
        self._parameter = nn.Parameter(self._theta[:active])  # shares theta's memory
        self._optimizer = self._make([self._parameter])

    def step(self, gradient: Gradient) -> None:
        self._parameter.grad = gradient()
        self._optimizer.step()

    def shrink(self, active: int) -> None:
        lanes = self._parameter.shape[0]
        state = self._optimizer.state[self._parameter]
        self._parameter = nn.Parameter(self._theta[:active])
        self._optimizer = self._make([self._parameter])
        # Moments are [lanes, P] and are cut with the lanes; a step count is common to all of them.
        self._optimizer.state[self._parameter] = {
            key: value[:active] if isinstance(value, Tensor) and value.shape[:1] == (lanes,) else value
            for key, value in state.items()
        }


def make_optimizer(name: str, local: LocalSettings, theta: Tensor) -> LaneOptimizer:
    """The optimizer called `name` for theta [lanes, P], with the settings of [local]."""
    make = OPTIMIZERS.load(name)
    assert callable(make)
    return cast(LaneOptimizer, make(local, theta))


def sgd(local: LocalSettings, theta: Tensor) -> LaneOptimizer:
    kind = Nesterov if local.nesterov else Descent
    return kind(theta, local.lr, local.momentum, local.weight_decay)
