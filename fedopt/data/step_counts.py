"""How many steps each client takes in each round, where that is drawn.

A client's draws depend on the seed, the round and its number alone, so a server, a client and a simulation agree on
them. They have a stream of their own: with "uniform(3, 3)" a client sees the minibatches that it sees with 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fedopt.algorithms.base import Algorithm, ServerRound
from fedopt.data.batches import batches_per_epoch
from fedopt.optimizers.amount import bounds
from fedopt.optimizers.local import LocalSettings
from fedopt.seeding import Purpose, stream


@dataclass(frozen=True)
class StepCounts:
    """The numbers of local steps of a run."""

    local: LocalSettings
    seed: int
    common: Callable[[int], int | None] = lambda round_: None
    """The number that an algorithm draws for all clients of a round; None where it draws none."""

    @classmethod
    def of(cls, algorithm: Algorithm, local: LocalSettings, seed: int) -> StepCounts:
        return cls(local, seed, lambda round_: algorithm.common_steps(ServerRound(round_, seed)))

    def at(self, samples: int, round_: int, client: int) -> int:
        """The steps of a client with so many samples in a round."""
        common = self.common(round_)
        return self._steps(samples, self._amount(round_, client)) if common is None else common

    def most(self, samples: int) -> int:
        """The most steps that a client with so many samples may draw, if the algorithm does not draw them."""
        return self._steps(samples, bounds(self.local.work)[1])

    def _amount(self, round_: int, client: int) -> int:
        """Epochs or steps, whichever `local` is in."""
        low, high = bounds(self.local.work)
        if low == high and self.local.stragglers == 0:
            return low
        whole, straggles, part = stream(self.seed, Purpose.WORK, round_, client).random(3)
        amount = low + int(whole * (high - low + 1))
        return 1 + int(part * amount) if straggles < self.local.stragglers else amount

    def _steps(self, samples: int, amount: int) -> int:
        return amount if self.local.steps is not None else amount * batches_per_epoch(samples, self.local)
