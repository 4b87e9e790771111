"""An algorithm that uses the whole contract: server and client state, vectors down, numbers, randomness, layout."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fedopt.algorithms.base import Algorithm, ServerRound
from fedopt.algorithms.local_work import Finished, LocalStart, LocalWork
from fedopt.storage.record import Line
from fedopt.vectors.layout import Vectors
from fedopt.vectors.totals import Totals


class NudgedRecord(Line):
    nudge: float | None = None
    """Mean norm of what is added to the clients' gradients."""


class Nudged(Algorithm):
    """FedAvg with server momentum m; clients add `pull` * m to their gradients and report half of their last step."""

    beta: float = Field(0.5, ge=0, lt=1)
    pull: float = Field(0.1, ge=0)

    sends_up: ClassVar[tuple[str, ...]] = ("dx", "halved")
    sends_numbers: ClassVar[tuple[str, ...]] = ("moved",)
    record: ClassVar[type[Line] | None] = NudgedRecord

    def server_state(self, x: Tensor) -> Vectors:
        return {"m": torch.zeros_like(x)}

    def client_state(self, x: Tensor) -> Vectors:
        return {"last": torch.zeros_like(x)}

    def sends_down(self, server: Vectors) -> Vectors:
        return {"m": server["m"]}

    def begin(self, local: LocalStart) -> Vectors:
        return {"pull": self.pull * local.down["m"] + torch.zeros_like(local.state["last"])}

    def shift(self, prepared: Vectors) -> Tensor:
        return prepared["pull"]

    def finish(self, work: LocalWork) -> Finished:
        entries = work.layout.unpack(work.displacement)  # the real ones, without the gaps of a row
        return Finished(
            up={"dx": work.displacement, "halved": work.displacement - 0.5 * work.state["last"] + 0 * work.down["m"]},
            state={"last": work.displacement},
            numbers={
                "moved": (entries != 0).sum(1) / entries.shape[1],
                "nudge": torch.linalg.vector_norm(work.prepared["pull"], dim=1),
            },
        )

    def advance(self, round_: ServerRound, x: Tensor, server: Vectors, totals: Totals) -> tuple[Tensor, Vectors]:
        noise = torch.from_numpy(round_.stream().standard_normal(x.shape)).to(x)
        m = self.beta * server["m"] + totals.mean("halved") * totals.number("moved")
        return x + self.server_lr * totals.mean("dx") + 0.1 * m + 1e-3 * noise, {"m": m}
