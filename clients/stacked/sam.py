"""SAM's gradients at the perturbed point, without moving the weights.

For a linear layer a minibatch gradient has low rank, d0^T x0 / B, with x0 the layer's input and d0 the gradient of its
output. At theta + s d0^T x0 the layer's output is that at theta plus s (x x0^T) d0. So SAM's perturbed output is
computed from the two factors, the weights are never changed, the gradient at theta is never stored, and its norm is a
sum over pairs of samples, |d0^T x0|^2 = sum_ij (d0 d0^T)_ij (x0 x0^T)_ij.

Measured on 2 Intel cores, whole rounds against the same code with moved weights: mlp 1.7 times as fast at batch 10 and
1.3 times at batch 64; logistic 1.0 times.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from clients.lanes.batches import LaneBatch
from clients.lanes.packing import Packing
from clients.lanes.storage import Scratch
from clients.stacked.linear import LinearRule
from clients.stacked.loss import StackedLoss
from clients.stacked.prepared import PreparedPass
from clients.stacked.products import plain_product, product
from clients.stacked.recognize import Step
from clients.stacked.rule import DiscardGradients, GradientTarget, Rule

MakeLoss = Callable[[Scratch, Tensor], StackedLoss]


class PerturbedLinear(LinearRule):
    """A linear layer at theta + step * d0^T x0, where x0 and d0 are those of the same layer at theta, `base`."""

    def __init__(self, base: LinearRule, step: Tensor) -> None:
        """`step` is [lanes, 1, 1]; it may change between calls."""
        super().__init__(base.outputs, base.weight, base.bias)
        self._base, self._step = base, step

    def prepare(self, inputs: Sequence[Tensor], wants_gradient: bool) -> Tensor:
        y = super().prepare(inputs, wants_gradient)
        lanes, rows, _ = self.x.shape
        self._x0 = self._base.x
        self._x0t = self._x0.transpose(1, 2)
        self._reads_samples = self.x.data_ptr() == self._x0.data_ptr()
        self._pairs, self._own_pairs, self._slopes = (
            self.scratch(name, lanes, (rows, rows)) for name in ("pairs", "own pairs", "slopes")
        )
        self._square = self.scratch("square", lanes, (1, 1))
        self._pair_own = plain_product(self._own_pairs, self._x0, self._x0t)
        self._pair = plain_product(self._pairs, self.x, self._x0t)
        return y

    def square(self) -> Tensor:
        """|d0^T x0|^2, [lanes, 1, 1]."""
        d0 = self._base.d
        rows = d0.shape[1] ** 2
        self._pair_own()
        self._include_bias(self._own_pairs)
        product(self._slopes, d0, d0.transpose(1, 2))
        product(self._square, self._own_pairs.view(-1, 1, rows), self._slopes.view(-1, rows, 1))
        return self._square

    def forward(self) -> None:
        if self._reads_samples:
            pairs = self._own_pairs
            self.y.copy_(self._base.y)
        else:
            pairs = self._pairs
            super().forward()
            self._pair()
            self._include_bias(pairs)
        product(self.y, pairs.mul_(self._step), self._base.d, keep=1.0)

    def backward(self, gradient: Tensor, into: GradientTarget) -> Sequence[Tensor]:
        found = super().backward(gradient, into)
        if found:
            product(self._slopes, self.d, self._base.d.transpose(1, 2))
            product(self.dx, self._slopes.mul_(self._step), self._x0, keep=1.0)
        return found

    def _include_bias(self, pairs: Tensor) -> None:
        """A bias is the weight of one more input, which is 1 for every sample."""
        if self.bias is not None:
            pairs.add_(1.0)


class PerturbedPass:
    """A pass at theta and one at the perturbed point. Implements `clients.lanes.backends.PerturbedGradients`."""

    def __init__(
        self,
        base: PreparedPass,
        steps: Sequence[Step],
        packing: Packing,
        theta: Tensor,
        scratches: Sequence[Scratch],
        make_loss: MakeLoss,
    ) -> None:
        """`base` is the pass at theta through `steps`. There is a scratch for each step, and the last for the loss."""
        self._base = base
        step = theta.new_zeros(len(theta), 1, 1)
        rules: list[Rule] = [
            PerturbedLinear(rule, step) if isinstance(rule, LinearRule) else copy.copy(rule) for rule in base.rules
        ]
        *of_steps, of_loss = scratches
        for rule, scratch in zip(rules, of_steps, strict=True):
            rule.bind(scratch)
        loss = make_loss(of_loss, base.loss.sums)
        steps = [Step(rule, own.inputs) for rule, own in zip(rules, steps, strict=True)]
        self._perturbed = PreparedPass(steps, base.x, packing, theta, loss)
        self._linear = [rule for rule in self._perturbed.rules if isinstance(rule, PerturbedLinear)]
        self._step = step
        self._least = torch.finfo(theta.dtype).tiny * 4

    def accumulate(self, batch: LaneBatch, into: Tensor, keep: float, scale: float, rho: float, counts: bool) -> None:
        self._base.run(batch, DiscardGradients(), counts)
        square = sum(rule.square() for rule in self._linear)
        assert isinstance(square, Tensor)
        # Rounding may make a vanishing square negative; the bound also keeps the largest step finite.
        self._step.fill_(rho).div_(square.clamp_(min=self._least * (1 + rho) ** 2).sqrt_())
        self._perturbed.run(batch, self._perturbed.target(into, keep, scale / batch.width), False)


def perturbation_pays(prepared: PreparedPass) -> bool:
    """Whether all parameters are those of linear layers, and the factors are smaller than the weights."""
    owners = [rule for rule in prepared.rules if rule.names]
    linear = [rule for rule in owners if isinstance(rule, LinearRule)]
    factors = sum(rule.x.shape[1] * (rule.x.shape[2] + rule.outputs) for rule in linear)
    return len(linear) == len(owners) and factors < sum(rule.x.shape[2] * rule.outputs for rule in linear)
