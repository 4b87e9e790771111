"""The way through the layers and back for one number of lanes and one width of batches.

Everything that depends on shapes alone is laid out once: a step then only calls kernels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from clients.lanes.batches import LaneBatch
from clients.lanes.packing import Packing
from clients.stacked.linear import LinearRule
from clients.stacked.loss import CrossEntropy
from clients.stacked.recognise import SAMPLES, Step
from clients.stacked.rule import Into, Rule

_Backward = tuple[Callable[[Tensor, Into], Sequence[Tensor]], int, list[tuple[int, int, bool]]]
"""A rule's way back, its number, and for its inputs: which, whose number, whether a gradient is there already."""

TARGETS = 8
"""How many buffers that gradients went to, each with its factors, stay laid out."""


class Circuit:
    """Rules, prepared; the buffers they work in are shared with the circuits of other shapes."""

    def __init__(self, steps: Sequence[Step], x: Tensor, packing: Packing, theta: Tensor, loss: CrossEntropy) -> None:
        """Batches will be in x, [lanes, B, ...]; `theta` are the weights of as many lanes."""
        self.x = x
        self._theta, self._packing = theta, packing
        self._weights = packing.views(theta)
        self.rules: list[Rule] = [copy.copy(step.rule) for step in steps]
        # Lanes without gaps between them are gathered in place.
        self._flat_x = x.view(-1, *x.shape[2:]) if x.is_contiguous() else None
        last = self.rules[-1]
        if isinstance(last, LinearRule):
            last.gives_logits = True
        values: list[Tensor] = []
        learns: list[bool] = []  # whether a value depends on parameters
        for step, rule in zip(steps, self.rules, strict=True):
            wants = any(source != SAMPLES and learns[source] for source in step.inputs)
            rule.weights = {name: self._weights[name] for name in rule.names}
            inputs = [x if source == SAMPLES else values[source] for source in step.inputs]
            values.append(rule.prepare(inputs, wants))
            learns.append(wants or bool(rule.names))
        self._forward = [rule.forward for rule in self.rules]
        self._back = _way_back(steps, self.rules, learns)
        self._gradients: list[Tensor | None] = [None] * len(steps)
        self.loss = loss
        loss.prepare(values[-1], last.bias_of_logits if isinstance(last, LinearRule) else None)
        self._targets: dict[tuple[int, float, float], Into] = {}

    def gather(self, batch: LaneBatch) -> None:
        if self._flat_x is None:
            self.x.copy_(batch.x)
        else:
            batch.gather(self._flat_x)

    def run(self, batch: LaneBatch, target: Into, counts: bool) -> None:
        """Adds width * gradient, on the batch that was gathered last."""
        for forward in self._forward:
            forward()
        gradients = self._gradients
        gradients[-1] = self.loss(batch, counts)
        for backward, number, routes in self._back:
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

    def into(self, buffer: Tensor, keep: float, scale: float) -> Into:
        """The parameters in a buffer [lanes, Q], to which gradients shall be added."""
        key = (buffer.data_ptr(), keep, scale)  # views keep their memory: no other buffer can lie there
        into = self._targets.get(key)
        if into is None:
            if len(self._targets) == TARGETS:
                del self._targets[next(iter(self._targets))]
            own = buffer.data_ptr() == self._theta.data_ptr()
            views: Mapping[str, Tensor] = self._weights if own else self._packing.views(buffer[: self._theta.shape[0]])
            into = self._targets[key] = Into(views, keep, scale)
        return into


def _way_back(steps: Sequence[Step], rules: Sequence[Rule], learns: Sequence[bool]) -> list[_Backward]:
    """The rules whose value depends on parameters, last first, and where the gradients of their inputs go."""
    way: list[_Backward] = []
    reached: set[int] = set()
    for number in range(len(steps) - 1, -1, -1):
        if not learns[number]:
            continue
        routes: list[tuple[int, int, bool]] = []
        for place, source in enumerate(steps[number].inputs):
            if source != SAMPLES and learns[source]:
                routes.append((place, source, source in reached))
                reached.add(source)
        way.append((rules[number].backward, number, routes))
    return way
