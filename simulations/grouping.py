"""Which clients train side by side, and in which worker. Speed only: never results."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Literal

from fedopt.federation import WorkOrder

STEP_SECONDS, LANE_SECONDS, PRODUCTS_A_SECOND = 35e-6, 2e-6, 50e9
"""What a step costs whatever its lanes, and what a lane adds: measured on AMD, for a fair share of the work."""


def cost_of_stepping(parameters: int, batch: int | Literal["full"]) -> float:
    """What it costs that lanes take a step at all, as a multiple of what each of them costs."""
    samples = 100 if batch == "full" else batch
    return STEP_SECONDS / (LANE_SECONDS + 6 * samples * parameters / PRODUCTS_A_SECOND)


def side_by_side(
    orders: Sequence[WorkOrder], samples: Sequence[int], lanes: int, workers: int, stepping: float = 1.0
) -> list[list[WorkOrder]]:
    """Which clients train together: those of like size, so that lanes finish together, the largest first.

    Each worker gets an equal share of the work, and of its clients as many at a time as there are lanes; groups of
    the workers take turns in the list. That lanes step at all costs as much as `stepping` lanes do.
    """
    by_size = sorted(orders, key=lambda order: (-samples[order.client], order.client))
    shares: list[list[WorkOrder]] = [[] for _ in range(workers)]
    loads = [0.0] * workers
    for order in by_size:
        # A group steps for as long as its first client, which is its largest.
        costs = [samples[order.client] * (1.0 if len(share) % lanes else 1.0 + stepping) for share in shares]
        place = min(range(workers), key=lambda worker: loads[worker] + costs[worker])
        loads[place] += costs[place]
        shares[place].append(order)
    groups = [[share[start : start + lanes] for start in range(0, len(share), lanes)] for share in shares]
    return [group for turn in zip_longest(*groups) for group in turn if group]
