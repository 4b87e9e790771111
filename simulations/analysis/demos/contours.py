"""Lines of equal loss over two weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 141
"""Along each side."""
LEVELS = 16
GRAYS = (0.3, 0.75)
"""Of the lowest and of the highest line; 1 would be white."""


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
    shares = torch.linspace(0.02, highest, LEVELS, dtype=torch.float64)
    levels = sorted(set(losses.reshape(-1).quantile(shares).tolist()))
    grays = [str(gray) for gray in torch.linspace(*GRAYS, len(levels), dtype=torch.float64).tolist()]
    panel.contour(w1, w2, losses, levels=levels, colors=grays, linestyles="solid", linewidths=0.6)
    panel.set_xlim(left, right)
    panel.set_ylim(bottom, top)
    panel.grid(visible=False)
