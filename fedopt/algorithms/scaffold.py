"""SCAFFOLD: Karimireddy, Kale, Mohri, Reddi, Stich, Suresh, "SCAFFOLD: Stochastic Controlled Averaging for
Federated Learning", ICML 2020 (arXiv:1910.06378), Algorithm 1.

    each round, each chosen client i:  y_i <- x,  then steps of any optimizer on  g(y_i) - c_i + c
                                       c_i+ <- the mean of the raw g of these steps  (mean-gradient)
                                          or   grad f_i(x) over all its data         (full-gradient, option I)
    server:                            x <- x + server_lr * sum p_i (y_i - x) / sum p_i
                                       c <- c + sum p_i (c_i+ - c_i)

All controls start at zero. For plain SGD the mean gradient is the paper's option II,
c_i - c + (x - y_i) / (K lr), since the displacement is lr times the sum of the corrected gradients. Under
momentum, Adam, SAM or clipping the displacement is no multiple of a gradient, and dividing it diverges; the mean
gradient is still the control that the paper means. The p_i are the same in both lines of the server: with other
weights in one of them the fixed point minimizes neither objective.

Where a client's loss is almost flat, the correction alone moves its model by K lr |c - c_i| / (1 - momentum) in a
round. After hundreds of steps under momentum, clients end far away, and single updates explode; `anchor` bounds this
(see anchored.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from fedopt.algorithms.anchored import Anchored
from fedopt.algorithms.base import ServerRound
from fedopt.algorithms.local_work import Finished, LocalStart, LocalWork
from fedopt.storage.record import Line
from fedopt.vectors.layout import Vectors
from fedopt.vectors.totals import Totals

WORST_ERROR = 100.0
"""What a client's ratio in `ControlRecord.error` is at most. At a gradient of zero it would be infinite, and a number
that is only recorded must not end a run."""


class ControlRecord(Line):
    """How good the controls are. c_i is a client's control at the start of the round, c the server's."""

    error: float | None = None
    """Mean of |c_i - grad f_i(x)|^2 / |grad f_i(x)|^2 over clients that sent grad f_i(x); 1 for a control of zero. A
    client counts with at most 100, since its gradient may be zero."""
    distance: float | None = None
    """sum w_i |c_i - c|, the mean norm of the correction."""
    gap: float | None = None
    """|c - sum p_i c_i| over all N clients after the round: 0 up to rounding, unless an update was lost."""


class Scaffold(Anchored):
    variant: Literal["mean-gradient", "full-gradient"] = "mean-gradient"
    """What a control becomes: the mean gradient of the local steps, or the full gradient at x (option I)."""

    correction: Literal["inside", "outside"] = "inside"
    """Where c - c_i enters: in the gradient, which the local optimizer then scales and averages (inside), or in the
    step, behind the optimizer (outside). SGD without momentum does the same with both. A control is a mean gradient in
    either case, so that outside Adam, whose steps have another size than gradients, the correction is weak."""

    sends_up: ClassVar[tuple[str, ...]] = ("dx", "dc")
    record: ClassVar[type[Line] | None] = ControlRecord

    @property
    def needs_mean_gradient(self) -> bool:
        return self.variant == "mean-gradient"

    def server_state(self, x: Tensor) -> Vectors:
        return {**super().server_state(x), "c": torch.zeros_like(x)}

    def client_state(self, x: Tensor) -> Vectors:
        return {"c_i": torch.zeros_like(x)}

    def sends_down(self, server: Vectors) -> Vectors:
        return {"c": server["c"]}

    def begin(self, local: LocalStart) -> Vectors:
        return {"correction": local.down["c"] - local.state["c_i"], **self.anchoring(local)}

    @property
    def pushes(self) -> bool:
        return self.correction == "outside"

    def shift(self, prepared: Vectors) -> Tensor | None:
        return None if self.pushes else prepared["correction"]

    def push(self, prepared: Vectors) -> Tensor | None:
        return prepared["correction"] if self.pushes else None

    def finish(self, work: LocalWork) -> Finished:
        c_i = work.state["c_i"]
        c_i_new = work.full_gradient() if work.mean_gradient is None else work.mean_gradient
        return Finished(
            up={"dx": work.displacement, "dc": c_i_new - c_i}, state={"c_i": c_i_new}, numbers=quality(work)
        )

    def advance(self, round_: ServerRound, x: Tensor, server: Vectors, totals: Totals) -> tuple[Tensor, Vectors]:
        x_new, stepped = self._step(x, totals.mean("dx"), server)
        c_new = server["c"] + totals.sum("dc")
        return x_new, {**stepped, "c": c_new}

    def check(self, server: Vectors, mean_state: Vectors) -> Mapping[str, float]:
        return {"gap": torch.linalg.vector_norm(server["c"].to(mean_state["c_i"]) - mean_state["c_i"]).item()}


def quality(work: LocalWork) -> dict[str, Tensor]:
    """The numbers of `ControlRecord` that a client knows, [lanes] each."""
    numbers = {"distance": torch.linalg.vector_norm(work.prepared["correction"], dim=1)}
    gradient = work.full_gradient.known
    if gradient is not None:
        apart, square = (work.state["c_i"] - gradient).square().sum(1), gradient.square().sum(1)
        numbers["error"] = (apart / square.clamp_min(torch.finfo(square.dtype).tiny)).clamp_max(WORST_ERROR)
    return numbers
