"""A proximal anchor whose weight follows from the length of the local work.

    local steps on  g(y_i) + whatever the algorithm adds + mu_i (y_i - x),   mu_i = anchor / (lr_1 + ... + lr_K)

A constant term a in the gradient, such as SCAFFOLD's c - c_i, moves a client by K lr |a| / (1 - momentum) in directions
in which its loss is flat. With the anchor it moves it by at most |a| / mu_i = K lr |a| / anchor, whatever the
momentum, and f_i(y) + <a, y> + mu_i / 2 |y - x|^2 has a minimum even where f_i grows only linearly. With this term
SCAFFOLD's local problem is that of DANE (Shamir, Srebro, Zhang, "Communication-Efficient Distributed Optimization
using an Approximate Newton-type Method", ICML 2014, arXiv:1312.7853), whose mu is to be as large as the clients'
Hessians differ. At y = x the term is zero, so the fixed point remains what it is.

Two clients with f_1 = 0 and f_2 = A y^2 / 2 show both sides: with full gradients as controls and many local steps,
SCAFFOLD is stable up to K lr A / (1 - momentum) = 5, and with anchor = 1 up to K lr A = 4.8. mu_i is at most 1 / lr:
from 2 / lr on, steps would overshoot x.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from fedopt.algorithms.local_work import LocalStart
from fedopt.algorithms.server_step import ServerStepped
from fedopt.vectors.layout import Vectors


class Anchored(ServerStepped):
    anchor: float = Field(0.0, ge=0)
    """The weight of a proximal term that keeps clients near the global model, in units of 1 / (the sum of a round's
    local rates). 0 is the paper's algorithm; 1 keeps clients with hundreds of local steps under momentum from running
    away, and leaves the optimum where it is."""

    @property
    def corrects_gradients(self) -> bool:
        return self.anchor > 0

    @property
    def needs_one_rate(self) -> bool:
        return self.anchor > 0 or super().needs_one_rate

    @property
    def fits_own_loops(self) -> bool:
        return self.anchor == 0 and super().fits_own_loops

    def correct(self, gradient: Tensor, y: Tensor, prepared: Vectors) -> Tensor:
        corrected = super().correct(gradient, y, prepared)
        if self.anchor == 0:
            return corrected
        return torch.addcmul(corrected, prepared["anchor"], y - prepared["x"])

    def anchoring(self, local: LocalStart) -> Vectors:
        """What `begin` must return for it."""
        if self.anchor == 0:
            return {}
        weights = [[anchor_weight(self.anchor, local.rates[: int(steps)])] for steps in local.steps.tolist()]
        return {"x": local.x, "anchor": local.x.new_tensor(weights)}


def anchor_weight(anchor: float, rates: Sequence[float]) -> float:
    """mu of a client whose steps have these rates."""
    span = max(sum(rates), anchor * max(rates))
    return anchor / span if span > 0 else 0.0
