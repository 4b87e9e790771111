"""Small curves as SVG text, for the HTML that a notebook shows."""

from __future__ import annotations

import math
from collections.abc import Sequence

COLOR = "#0072B2"
"""The first color of the report's figures."""

MOST_POINTS = 200
"""Points of a curve; of more, evenly spaced ones are drawn, and the last."""

MARGIN = 2
"""Pixels around a curve, for its line's width."""

Points = Sequence[tuple[float, float]]
"""(round, value)."""


def sparkline(points: Points, width: int = 120, height: int = 22) -> str:
    """The curve alone, scaled to its own values; "" if fewer than two of them are finite."""
    known = finite(points)
    if len(known) < 2:
        return ""
    line = _line(known, (known[0][0], known[-1][0]), width, height)
    return f'<svg width="{width}" height="{height}" role="img" aria-label="curve over rounds">{line}</svg>'


def chart(
    points: Points, rounds: int, label: str = "test accuracy", form: str = "{:.1%}", width: int = 420, height: int = 96
) -> str:
    """The curve over all `rounds`, the last of which may be still to come, with its smallest and largest value beside
    it, by default in percent; "" without a finite value."""
    known = finite(points)
    if not known:
        return ""
    low, high = _range(known)
    left, below = 48, 16
    line = _line(known, (1, max(2, rounds)), width - left, height - below)
    text = 'font-size="11" fill="currentColor" fill-opacity="0.7"'
    return (
        f'<svg width="{width}" height="{height}" role="img" aria-label="{label} over rounds">'
        f'<text x="{left - 6}" y="11" text-anchor="end" {text}>{form.format(high)}</text>'
        f'<text x="{left - 6}" y="{height - below}" text-anchor="end" {text}>{form.format(low)}</text>'
        f'<text x="{left}" y="{height - 3}" {text}>1</text>'
        f'<text x="{width}" y="{height - 3}" text-anchor="end" {text}>round {rounds}</text>'
        f'<path d="M{left} 0V{height - below}H{width}" fill="none" stroke="currentColor" stroke-opacity="0.3"/>'
        f'<g transform="translate({left} 0)">{line}</g></svg>'
    )


def finite(points: Points) -> list[tuple[float, float]]:
    return [(round_, value) for round_, value in points if math.isfinite(value)]


def _range(points: Points) -> tuple[float, float]:
    values = [value for _, value in points]
    return min(values), max(values)


def _line(points: Points, span: tuple[float, float], width: int, height: int) -> str:
    """The curve in a box of that size, whose left and right edges are the rounds of `span`; a dot marks its end."""
    every = math.ceil(len(points) / MOST_POINTS)
    drawn = [*points[:-1:every], points[-1]]
    (first, end), (low, high) = span, _range(points)
    wide, tall = width - 2 * MARGIN, height - 2 * MARGIN
    places = [
        (
            MARGIN + wide * (round_ - first) / ((end - first) or 1),
            MARGIN + tall * (1 - ((value - low) / (high - low) if high > low else 0.5)),
        )
        for round_, value in drawn
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    x, y = places[-1]
    return (
        f'<polyline points="{path}" fill="none" stroke="{COLOR}" stroke-width="1.5"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="{COLOR}"/>'
    )
