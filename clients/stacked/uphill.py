"""Gradients at the worst point of a ball around theta (SAM), without going there.

A minibatch's gradient of a linear layer is a product of thin factors, d0^T x0 / B. At theta + s d0^T x0 its output is
that at theta plus s (x x0^T) d0, so that weights are neither moved nor put back, the gradient at theta is never
written down, and its norm is a sum over pairs of samples, |d0^T x0|^2 = sum_ij (d0 d0^T)_ij (x0 x0^T)_ij.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from clients.lanes.batches import LaneBatch
from clients.lanes.packing import Packing
from clients.lanes.storage import Scratch
from clients.stacked.circuit import Circuit
from clients.stacked.linear import LinearRule
from clients.stacked.loss import CrossEntropy
from clients.stacked.products import plain_product, product
from clients.stacked.recognise import Step
from clients.stacked.rule import Into, Nowhere, Rule


class LinearUphill(LinearRule):
    """A linear layer at theta + step * d0^T x0, where `below` found x0 and d0."""

    def __init__(self, below: LinearRule, step: Tensor) -> None:
        """`step` is [lanes, 1, 1]; it may change between calls."""
        super().__init__(below.outputs, below.weight, below.bias)
        self._below, self._step = below, step

    def prepare(self, inputs: Sequence[Tensor], wants_gradient: bool) -> Tensor:
        y = super().prepare(inputs, wants_gradient)
        lanes, rows, _ = self.x.shape
        self._x0 = self._below.x
        self._x0t = self._x0.transpose(1, 2)
        self._of_samples = self.x.data_ptr() == self._x0.data_ptr()
        self._pairs, self._own_pairs, self._slopes = (
            self.scratch(name, lanes, (rows, rows)) for name in ("pairs", "own pairs", "slopes")
        )
        self._square = self.scratch("square", lanes, (1, 1))
        self._pair_own = plain_product(self._own_pairs, self._x0, self._x0t)
        self._pair = plain_product(self._pairs, self.x, self._x0t)
        return y

    def square(self) -> Tensor:
        """|d0^T x0|^2, [lanes, 1, 1]."""
        d0 = self._below.d
        rows = d0.shape[1] ** 2
        self._pair_own()
        self._count_bias(self._own_pairs)
        product(self._slopes, d0, d0.transpose(1, 2))
        product(self._square, self._own_pairs.view(-1, 1, rows), self._slopes.view(-1, rows, 1))
        return self._square

    def forward(self) -> None:
        if self._of_samples:
            pairs = self._own_pairs
            self.y.copy_(self._below.y)
        else:
            pairs = self._pairs
            super().forward()
            self._pair()
            self._count_bias(pairs)
        product(self.y, pairs.mul_(self._step), self._below.d, keep=1.0)

    def backward(self, gradient: Tensor, into: Into) -> Sequence[Tensor]:
        found = super().backward(gradient, into)
        if found:
            product(self._slopes, self.d, self._below.d.transpose(1, 2))
            product(self.dx, self._slopes.mul_(self._step), self._x0, keep=1.0)
        return found

    def _count_bias(self, pairs: Tensor) -> None:
        """The bias is the weight of an input that is 1 for every sample."""
        if self.bias is not None:
            pairs.add_(1.0)


class Uphill:
    """A second way through the layers of a circuit. Implements `clients.lanes.backends.Ascent`."""

    def __init__(
        self,
        below: Circuit,
        steps: Sequence[Step],
        packing: Packing,
        theta: Tensor,
        scratches: Sequence[Scratch],
        scratch_of_loss: Scratch,
    ) -> None:
        """`below` goes through `steps` at theta; its samples are those of this way. A scratch for each step."""
        self._below = below
        step = theta.new_zeros(len(theta), 1, 1)
        rules: list[Rule] = [
            LinearUphill(rule, step) if isinstance(rule, LinearRule) else copy.copy(rule) for rule in below.rules
        ]
        for rule, scratch in zip(rules, scratches, strict=True):
            rule.bind(scratch)
        loss = CrossEntropy(scratch_of_loss, below.loss.sums)
        steps = [Step(rule, own.inputs) for rule, own in zip(rules, steps, strict=True)]
        self._above = Circuit(steps, below.x, packing, theta, loss)
        self._linear = [rule for rule in self._above.rules if isinstance(rule, LinearUphill)]
        self._step = step
        self._least = torch.finfo(theta.dtype).tiny * 4

    def accumulate(self, batch: LaneBatch, into: Tensor, keep: float, scale: float, rho: float, counts: bool) -> None:
        self._below.run(batch, Nowhere(), counts)
        square = sum(rule.square() for rule in self._linear)
        assert isinstance(square, Tensor)
        # Rounding may leave a vanishing square below zero; the largest step stays in range.
        self._step.fill_(rho).div_(square.clamp_(min=self._least * (1 + rho) ** 2).sqrt_())
        self._above.run(batch, self._above.into(into, keep, scale / batch.width), False)


def goes_uphill(circuit: Circuit) -> bool:
    """Whether all that learns is linear layers, on so few samples that their factors are less than the weights."""
    owners = [rule for rule in circuit.rules if rule.names]
    linear = [rule for rule in owners if isinstance(rule, LinearRule)]
    factors = sum(rule.x.shape[1] * (rule.x.shape[2] + rule.outputs) for rule in linear)
    return len(linear) == len(owners) and factors < sum(rule.x.shape[2] * rule.outputs for rule in linear)
