"""FedExP: Jhunjhunwala, Wang, Joshi, "FedExP: Speeding Up Federated Averaging via Extrapolation", ICLR 2023
(arXiv:2301.09604), Algorithm 1.

    clients as in FedAvg;  D_i = y_i - x,  D = sum p_i D_i / sum p_i
    server:  s <- max(1, (sum p_i |D_i|^2 / sum p_i) / (2 (|D|^2 + eps)))
             x <- x + s D

The paper writes it for equal weights. With weights p_i its argument gives this s: where the y_i come no farther from
the optimum x* than x, in the weighted mean of squares, |x + s D - x*|^2 is at most |x - x*|^2 - s sum p_i |D_i|^2 +
s^2 |D|^2, which is least at the s above with eps = 0. The authors' code weights both sums by p_i as well; it multiplies
eps by the number of a round's clients, and shrinks it with the square of a local rate that decays. The paper evaluates
the mean of the last two x; here it is the last one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fedopt.algorithms.base import Algorithm, ServerRound
from fedopt.algorithms.local_work import Finished, LocalWork
from fedopt.storage.record import Line
from fedopt.vectors.layout import Vectors, finest
from fedopt.vectors.totals import Totals


class ExtrapolationRecord(Line):
    """What the server made of the round's updates."""

    step_size: float | None = None
    """s, the factor of the mean update; 1 is FedAvg."""
    squared_norm: float | None = None
    """sum w_i |D_i|^2, the mean squared norm of the updates."""


class FedExP(Algorithm):
    eps: float = Field(1e-3, ge=0)
    """Added to the squared norm of the mean update: the larger, the closer to FedAvg. 0.001 to 0.1 in the paper."""

    sends_numbers: ClassVar[tuple[str, ...]] = ("squared_norm",)
    record: ClassVar[type[Line] | None] = ExtrapolationRecord

    def finish(self, work: LocalWork) -> Finished:
        squared_norm = torch.linalg.vector_norm(work.displacement, dim=1).square()
        return Finished(up={"dx": work.displacement}, numbers={"squared_norm": squared_norm})

    def advance(self, round_: ServerRound, x: Tensor, server: Vectors, totals: Totals) -> tuple[Tensor, Vectors]:
        return x + self.server_lr * self._step_size(totals) * totals.mean("dx"), server

    def report(self, totals: Totals) -> Mapping[str, float]:
        return {"step_size": self._step_size(totals)}

    def _step_size(self, totals: Totals) -> float:
        mean = totals.mean("dx")
        twice = 2 * (torch.linalg.vector_norm(mean, dtype=finest(mean)).item() ** 2 + self.eps)
        return max(1.0, totals.number("squared_norm") / twice) if twice > 0 else 1.0
