"""What becomes of the local optimizer's moments between rounds: `local.state`.

reset       they start at zero in every round
keep        each client continues from its own, which are part of its state: promoted or dropped like the rest of it
average     they travel up, the server takes their weighted mean, and every client of the next round starts from it
average-v   the same for the second moment v alone; the first starts at zero
block-v     the same for the mean of v over each parameter tensor, which stands at each of the tensor's entries

Adam's count of steps travels with v and is averaged like it, since v sums to 1 - beta_2^t of its weights: a client
divides by 1 - beta_2^t with the t of all rounds. The first moment is divided by 1 - beta_1^k with the k of the round,
if it starts at zero. Clients that take unequal steps bring unequal t; the mean is then near the right t, not at it.

Block means are one number a tensor. They travel as vectors all the same, with equal entries within a block: a message
is not shorter than under average-v, unless the channel compresses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedopt.optimizers.local import LocalSettings, State
from fedopt.vectors.layout import RowLayout, Vectors
from fedopt.vectors.totals import Totals

PREFIX = "optimizer."
"""Names of moments among the vectors of clients and server begin with this."""

SECOND_MOMENTS = (f"{PREFIX}max_exp_avg_sq", f"{PREFIX}exp_avg_sq")
"""Names under which a second moment travels; the first one that there is counts."""


@dataclass(frozen=True)
class Moments:
    """The moments that outlive a round."""

    state: State = "reset"
    names: tuple[str, ...] = ()
    """With the prefix; empty where nothing outlives a round."""

    @classmethod
    def of(cls, local: LocalSettings) -> Moments:
        if local.state == "reset":
            return NO_MOMENTS
        optimizer = local.optimizer
        own = optimizer.second_moment_names if local.carries_second_moment else optimizer.moment_names
        return cls(local.state, tuple(f"{PREFIX}{name}" for name in own)) if own else NO_MOMENTS

    @property
    def sends_up(self) -> tuple[str, ...]:
        return () if self.state == "keep" else self.names

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
        source = state if self.state == "keep" else down
        width = {name: source[name].shape[-1] for name in self.names}
        return {name.removeprefix(PREFIX): source[name].expand(lanes, width[name]) for name in self.names}

    def to_send(self, moments: Mapping[str, Tensor], layout: RowLayout) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What travels up and what the client keeps of these, [lanes, Q] each; copies, since steps overwrite them."""
        found = {name: moments[name.removeprefix(PREFIX)].clone() for name in self.names}
        if self.state == "block-v":
            for rows in found.values():
                take_block_means(rows, layout)
        return ({}, found) if self.state == "keep" else (found, {})


NO_MOMENTS = Moments()


def take_block_means(rows: Tensor, layout: RowLayout) -> None:
    """Replaces each parameter in rows [lanes, Q] by its mean."""
    for block in layout.views(rows).values():
        for lane in block:  # one by one: a mean over one of several dimensions may be summed in another order
            lane.fill_(lane.mean())
