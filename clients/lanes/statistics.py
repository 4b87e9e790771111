"""BatchNorm's running statistics on lanes: one row for each replica of the module, which its forward passes update."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from clients.lanes.packing import Packing
from fedopt.vectors.layout import Layout


class LaneStatistics:
    """The statistics of each lane; a layer's are views of its lane's row, and aligned as tensors of their own are."""

    def __init__(self, module: nn.Module, like: Tensor, lanes: int) -> None:
        """Those of the module, in each lane."""
        layout = Layout.with_statistics(module).of_statistics
        self._packing = Packing(layout, like)
        self._rows = like.new_zeros(lanes, self._packing.width)
        self.load(layout.flatten(module).to(like))

    def bind(self, replica: nn.Module, lane: int) -> None:
        """Makes the statistics of this copy of the module those of a lane; it counts no batches."""
        for name, view in self._packing.views(self._rows[lane]).items():
            path, _, statistic = name.rpartition(".")
            layer = replica.get_submodule(path)
            setattr(layer, statistic, view)
            layer.register_buffer("num_batches_tracked", None)  # read by layers without a momentum alone

    def load(self, flat: Tensor) -> None:
        """Starts all lanes from the statistics [S], or the first ones from those of each, [lanes, S]."""
        rows = self._packing.pack(flat)
        (self._rows if rows.ndim == 1 else self._rows[: len(rows)]).copy_(rows)

    def read(self, lanes: int) -> Tensor:
        """A copy of those of the first lanes, [lanes, S]."""
        return self._packing.unpack(self._rows[:lanes]).clone()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """For passes that do not count: afterwards all statistics are what they were."""
        before = self._rows.clone()
        yield
        with torch.no_grad():
            self._rows.copy_(before)
