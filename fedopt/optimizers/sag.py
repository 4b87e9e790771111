"""SAG and SAGA, with a table of each sample's last gradient: Le Roux, Schmidt, Bach, "A Stochastic Gradient Method with
an Exponential Convergence Rate for Finite Training Sets", NeurIPS 2012 (arXiv:1202.6258); Defazio, Bach,
Lacoste-Julien, "SAGA", NeurIPS 2014 (arXiv:1407.0202). At sample j of n:

    sag:   t_j <- g_j,                                theta <- theta - lr sum(t) / (samples seen so far)
    saga:  theta <- theta - lr (g_j - t_j + sum(t) / n),   then t_j <- g_j

The table starts at zero in each round, so a round should be several epochs: saga is unbiased with any table, and sag
divides by the samples that it has seen, as its paper proposes. A step is one sample: local.batch_size = 1. The table
takes the memory of as many models as a client has samples.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from fedopt.errors import InvalidExperiment
from fedopt.optimizers.base import Batches, Gradient, LaneOptimizer, Optimizer, Samples, subtract
from fedopt.schedules.base import Rates
from fedopt.vectors.layout import RowLayout


class Sag(Optimizer):
    table_gib: float = Field(1.0, gt=0)
    """The most memory in GiB that the tables of clients that train side by side may take."""

    can_be_base: ClassVar[bool] = False
    batches: ClassVar[Batches] = "single"
    is_unbiased: ClassVar[bool] = False

    def build(self, theta: Tensor, layout: RowLayout) -> LaneOptimizer:
        return SagLanes(theta, self)

    @property
    def starts_anew(self) -> bool:
        return True


class SagLanes(LaneOptimizer):
    recordable = False

    def __init__(self, theta: Tensor, settings: Sag) -> None:
        super().__init__(theta)
        self._settings = settings
        self._sums = torch.zeros_like(theta)
        """Of each lane's table."""
        self._table: Tensor | None = None
        """Those of all lanes, one after the other, [samples of all lanes, Q]."""

    def begin(self, lanes: int, rates: Rates) -> None:
        super().begin(lanes, rates)
        self._sums[:lanes].zero_()
        self._table = None

    def step(self, gradient: Gradient) -> None:
        found, samples = gradient(), gradient.samples()
        if self._table is None:
            self._table = self._empty_table(samples)
        places = self._starts[: len(found)] + samples.positions
        sums, change = self._sums[: len(found)], found - self._table[places]
        if self._settings.is_unbiased:
            direction = change + sums / self._sizes[: len(found)]
        self._table[places] = found
        sums += change
        if not self._settings.is_unbiased:
            is_new = ~self._seen[places]
            self._seen[places] = True
            self._counts[: len(found)] += is_new[:, None]
            direction = sums / self._counts[: len(found)]
        subtract(self.active, self.next_rate(), direction)

    def _empty_table(self, samples: Samples) -> Tensor:
        sizes = torch.as_tensor(samples.sizes, device=self.theta.device)
        total = int(sizes.sum())
        memory = total * self.theta.shape[1] * self.theta.element_size() / 2**30
        if memory > self._settings.table_gib:
            raise InvalidExperiment(
                f"local.optimizer: {self._settings.name} keeps a gradient of each of {total:,} samples, which takes "
                f"{memory:,.1f} GiB; local.table_gib = {self._settings.table_gib:g} allows less"
            )
        self._starts = sizes.cumsum(0) - sizes
        self._sizes = sizes[:, None].to(self.theta)
        self._counts = torch.zeros_like(self._sizes)
        self._seen = torch.zeros(total, dtype=torch.bool, device=self.theta.device)
        return self.theta.new_zeros(total, self.theta.shape[1])
