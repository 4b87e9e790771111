"""How much the loss rises around a point: at worst within a ball, as SAM measures it, and on average."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from simulations.analysis.runs.objective import Objective

Norm = Literal["1", "2", "inf"]


def worst_rise(objective: Objective, w: Tensor, rho: float, norm: Norm, starts: Iterable[Tensor], steps: int) -> float:
    """The largest L(w + e) - L(w) found with |e| <= rho in the norm, at least 0.

    From each start [P], a direction, ascent goes to the point of the ball where the linearized loss is largest, as SAM
    does once, and again from there. For a convex loss no step descends. It is a lower bound of the maximum.
    """
    here, best = objective.value(w), 0.0
    for direction in starts:
        step = furthest(direction, rho, norm)
        risen = objective.value(w + step) - here
        for _ in range(steps):
            best = max(best, risen)
            following = furthest(objective.gradient(w + step), rho, norm)
            if torch.equal(following, step):
                break
            step = following
            risen = objective.value(w + step) - here
        best = max(best, risen)
    return best


def furthest(direction: Tensor, rho: float, norm: Norm) -> Tensor:
    """The e with |e| <= rho in the norm for which <e, direction> is largest; zeros for a direction of zeros."""
    if norm == "2":
        length = torch.linalg.vector_norm(direction)
        return direction * (rho / length) if length > 0 else torch.zeros_like(direction)
    if norm == "inf":
        return rho * direction.sign()
    one = torch.zeros_like(direction)
    place = int(direction.abs().argmax())
    one[place] = rho * direction[place].sign()
    return one


def average_rise(
    objective: Objective, w: Tensor, rho: float, draws: int, source: torch.Generator
) -> tuple[float, float]:
    """The mean of L(w + e) - L(w) over e of length rho in random directions, and its standard error."""
    here = objective.value(w)
    rises = torch.tensor(
        [
            objective.value(w + furthest(torch.randn(len(w), generator=source, dtype=w.dtype), rho, "2")) - here
            for _ in range(draws)
        ],
        dtype=torch.float64,
    )
    return rises.mean().item(), rises.std().item() / math.sqrt(draws) if draws > 1 else math.nan
