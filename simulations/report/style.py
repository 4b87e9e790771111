"""The look of the figures for a paper: color-blind safe, with text that stays text."""

from __future__ import annotations

from typing import Any

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""The palette of Okabe and Ito."""

DASHES = ("-", "--", ":", "-.")

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "svg.hashsalt": "fedopt",
    "lines.linewidth": 1.5,
}
