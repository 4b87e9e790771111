"""Lines of equal loss over two weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 81
"""Along each side."""
LEVELS = 16


def draw_contours(
    panel: Axes, loss: Callable[[Tensor], Tensor], window: tuple[float, float, float, float], highest: float = 0.97
) -> None:
    """Draws the loss at points [..., 2] within the window (smallest and largest w1, smallest and largest w2).

    As many points lie between each two lines, so that these are closer where the loss is low; the share of points that
    is beyond `highest` has none.
    """
    left, right, bottom, top = window
    w1, w2 = torch.meshgrid(
        torch.linspace(left, right, POINTS, dtype=torch.float64),
        torch.linspace(bottom, top, POINTS, dtype=torch.float64),
        indexing="xy",
    )
    losses = loss(torch.stack([w1, w2], -1))
    shares = torch.linspace(0.01, highest, LEVELS, dtype=torch.float64)
    levels = losses.reshape(-1).quantile(shares).tolist()
    panel.contour(w1, w2, losses, levels=sorted(set(levels)), cmap="Greys_r", linewidths=0.6)
    panel.set_xlim(left, right)
    panel.set_ylim(bottom, top)
    panel.grid(visible=False)
