"""What becomes of the local optimizer's moments between rounds: `local.state` = reset, keep or average.

reset     they start at zero in every round
keep      each client continues from its own, which are part of its state: promoted or dropped like the rest of it
average   they travel up, the server takes their weighted mean, and every client of the next round starts from it
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fedopt.optimizers.local import LocalSettings
from fedopt.vectors.layout import Vectors
from fedopt.vectors.totals import Totals

PREFIX = "optimizer."
"""Names of moments among the vectors of clients and server begin with this."""


@dataclass(frozen=True)
class Moments:
    """The moments that outlive a round."""

    state: Literal["reset", "keep", "average"] = "reset"
    names: tuple[str, ...] = ()
    """With the prefix; empty where nothing outlives a round."""

    @classmethod
    def of(cls, local: LocalSettings) -> Moments:
        names = tuple(f"{PREFIX}{name}" for name in local.optimizer.moment_names)
        return cls(local.state, names) if names and local.state != "reset" else NO_MOMENTS

    @property
    def sends_up(self) -> tuple[str, ...]:
        return self.names if self.state == "average" else ()

    def client_state(self, x: Tensor) -> Vectors:
        return {name: torch.zeros_like(x) for name in self.names} if self.state == "keep" else {}

    def server_state(self, x: Tensor) -> Vectors:
        return {name: torch.zeros_like(x) for name in self.sends_up}

    def sends_down(self, server: Vectors) -> Vectors:
        return {name: server[name] for name in self.sends_up}

    def advance(self, totals: Totals) -> Vectors:
        return {name: totals.mean(name) for name in self.sends_up}

    def to_load(self, down: Vectors, state: Vectors, lanes: int) -> dict[str, Tensor]:
        """What the lanes start from, [lanes, Q] by the optimizer's own names."""
        source = down if self.state == "average" else state
        width = {name: source[name].shape[-1] for name in self.names}
        return {name.removeprefix(PREFIX): source[name].expand(lanes, width[name]) for name in self.names}

    def to_send(self, moments: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What travels up and what the client keeps of these, [lanes, Q] each; copies, since steps overwrite them."""
        found = {f"{PREFIX}{name}": moment.clone() for name, moment in moments.items()} if self.names else {}
        return (found, {}) if self.state == "average" else ({}, found)


NO_MOMENTS = Moments()
