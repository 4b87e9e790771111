"""The interface of the centralized run that a federated run is compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from torch import Tensor

from fedopt.round.loop import RoundWork


class Reference(Protocol):
    """Starts from the same weights and trains, in every round, on as many samples as the round's clients.

    Zhao, Li, Lai, Suda, Civin, Chandra, "Federated Learning with Non-IID Data", 2018 (arXiv:1806.00582).
    """

    def divergence(self, x: Tensor, work: RoundWork) -> float | None:
        """|x - x_central| / |x_central| after this round, which is the next one; None where x_central is 0."""
        ...

    def save(self, folder: Path, round_: int) -> None:
        """Stores x_central for a checkpoint of that round, and keeps the file of the checkpoint before."""
        ...

    def restore(self, folder: Path, round_: int) -> None:
        """Loads what `save` stored for that round."""
        ...
