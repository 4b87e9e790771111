"""The centralised run that a federated one is compared with, as the recorder sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from torch import Tensor

from fedopt.round.loop import RoundWork


class Reference(Protocol):
    """Starts at the same weights and, round by round, sees as many samples as the round's clients did.

    Zhao, Li, Lai, Suda, Civin, Chandra, "Federated Learning with Non-IID Data", 2018 (arXiv:1806.00582).
    """

    def divergence(self, x: Tensor, work: RoundWork) -> float | None:
        """|x - x_central| / |x_central| after this round, which is the next one; None where x_central is 0."""
        ...

    def save(self, folder: Path, round_: int) -> None:
        """Stores x_central beside a checkpoint of that round; what the one before needs stays."""
        ...

    def restore(self, folder: Path, round_: int) -> None:
        """Loads what `save` stored for that round."""
        ...
