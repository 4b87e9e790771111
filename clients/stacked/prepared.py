"""The forward and backward pass through the layers for one number of lanes and one batch width.

Everything that depends on shapes only is prepared once: a step then only calls kernels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from clients.lanes.batches import LaneBatch
from clients.lanes.packing import Packing
from clients.stacked.linear import LinearRule
from clients.stacked.loss import StackedLoss
from clients.stacked.recognize import SAMPLES, Step
from clients.stacked.rule import GradientTarget, Rule

_Backward = tuple[Callable[[Tensor, GradientTarget], Sequence[Tensor]], int, list[tuple[int, int, bool]]]
"""A rule's backward function, its number, and for each input: its place, the number of the rule that made it, and
whether another gradient was written for that rule before, so that this one must be added."""

TARGETS = 4
"""The most buffers whose views are cached as targets of gradients."""


class PreparedPass:
    """Prepared rules. Their buffers are shared with the passes for other shapes."""

    def __init__(self, steps: Sequence[Step], x: Tensor, packing: Packing, theta: Tensor, loss: StackedLoss) -> None:
        """Batches will be written to x, [lanes, B, ...]; `theta` [lanes, Q] are the weights."""
        self.x = x
        self._theta, self._packing = theta, packing
        self._weights = packing.views(theta)
        self.rules: list[Rule] = [copy.copy(step.rule) for step in steps]
        # Samples are gathered directly into x if there are no gaps between lanes.
        self._flat_x = x.view(-1, *x.shape[2:]) if x.is_contiguous() else None
        last = self.rules[-1]
        if isinstance(last, LinearRule):
            last.outputs_logits = True
        values: list[Tensor] = []
        trained: list[bool] = []  # whether a value depends on parameters
        for step, rule in zip(steps, self.rules, strict=True):
            wants = any(source != SAMPLES and trained[source] for source in step.inputs)
            rule.weights = {name: self._weights[name] for name in rule.names}
            inputs = [x if source == SAMPLES else values[source] for source in step.inputs]
            values.append(rule.prepare(inputs, wants))
            trained.append(wants or bool(rule.names))
        self._forward = [rule.forward for rule in self.rules]
        self._backward = _backward_order(steps, self.rules, trained)
        self._gradients: list[Tensor | None] = [None] * len(steps)
        self.loss = loss
        loss.prepare(values[-1], last.bias_of_logits if isinstance(last, LinearRule) else None)
        self._targets: dict[int, GradientTarget] = {}

    def gather(self, batch: LaneBatch) -> None:
        """Writes the batch's samples to x."""
        if self._flat_x is None:
            self.x.copy_(batch.x)
        else:
            batch.gather(self._flat_x)

    def run(self, batch: LaneBatch, target: GradientTarget, counts: bool) -> None:
        """Writes width * gradient on the batch that was gathered last to `target`."""
        for forward in self._forward:
            forward()
        gradients = self._gradients
        gradients[-1] = self.loss(batch, counts)
        for backward, number, routes in self._backward:
            gradient = gradients[number]
            assert gradient is not None
            found = backward(gradient, target)
            for place, source, adds in routes:
                if adds:
                    present = gradients[source]
                    assert present is not None
                    present.add_(found[place])
                else:
                    gradients[source] = found[place]

    def target(self, buffer: Tensor, keep: float, scale: float) -> GradientTarget:
        """A target that makes of the parameters in a buffer [lanes, Q] keep * parameter + scale * gradient."""
        place = buffer.data_ptr()  # cached views keep their memory alive: no other buffer can have this address
        target = self._targets.get(place)
        if target is None:
            if len(self._targets) == TARGETS:
                del self._targets[next(iter(self._targets))]
            own = place == self._theta.data_ptr()
            views: Mapping[str, Tensor] = self._weights if own else self._packing.views(buffer[: self._theta.shape[0]])
            target = self._targets[place] = GradientTarget(views)
        target.keep, target.scale = keep, scale
        return target


def _backward_order(steps: Sequence[Step], rules: Sequence[Rule], trained: Sequence[bool]) -> list[_Backward]:
    """The rules whose value depends on parameters, last first, and where the gradients of their inputs go."""
    order: list[_Backward] = []
    reached: set[int] = set()
    for number in range(len(steps) - 1, -1, -1):
        if not trained[number]:
            continue
        routes: list[tuple[int, int, bool]] = []
        for place, source in enumerate(steps[number].inputs):
            if source != SAMPLES and trained[source]:
                routes.append((place, source, source in reached))
                reached.add(source)
        order.append((rules[number].backward, number, routes))
    return order
