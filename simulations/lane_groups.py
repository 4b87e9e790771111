"""Which clients train side by side, and in which worker. It changes speed, never results."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Literal

from fedopt.round.federation import WorkOrder

STEP_SECONDS, LANE_SECONDS, SAMPLE_SECONDS, PRODUCTS_A_SECOND = 35e-6, 2e-6, 0.6e-6, 110e9
"""The cost model of a step: a constant, a term per lane and a term per sample, measured on AMD. It balances workers."""

EXCHANGED = 64
"""With at most so many orders, exchanges balance the workers further; with more, greedy shares are balanced enough."""


def cost_of_stepping(parameters: int, batch: int | Literal["full"]) -> float:
    """The constant cost of a step, in units of the cost of one lane."""
    samples = 100 if batch == "full" else batch
    return STEP_SECONDS / (LANE_SECONDS + samples * (SAMPLE_SECONDS + 6 * parameters / PRODUCTS_A_SECOND))


def side_by_side(
    orders: Sequence[WorkOrder], samples: Sequence[int], lanes: int, workers: int, stepping: float = 1.0
) -> list[list[WorkOrder]]:
    """Groups of clients that train together: clients of similar size, so that lanes finish together; largest first.

    Each worker gets an equal share of the work, in groups of at most `lanes` clients. The list alternates between the
    workers. `stepping` is the constant cost of a step, in units of the cost of one lane.
    """
    by_client = {order.client: order for order in orders}
    by_size = sorted(by_client, key=lambda client: (-samples[client], client))
    work = _Work(samples, lanes, stepping)
    shares: list[list[int]] = [[] for _ in range(workers)]
    loads = [0.0] * workers
    for client in by_size:
        costs = [work.added(share, client) for share in shares]
        place = min(range(workers), key=lambda worker: loads[worker] + costs[worker])
        loads[place] += costs[place]
        shares[place].append(client)
    while workers > 1 and len(orders) <= EXCHANGED and _even_out(shares, work):
        pass
    groups = [
        [[by_client[client] for client in share[start : start + lanes]] for start in range(0, len(share), lanes)]
        for share in shares
    ]
    return [group for turn in zip_longest(*groups) for group in turn if group]


class _Work:
    """The cost of training a worker's clients, which are sorted by falling size."""

    def __init__(self, samples: Sequence[int], lanes: int, stepping: float) -> None:
        self._samples, self._lanes, self._stepping = samples, lanes, stepping

    def added(self, share: Sequence[int], client: int) -> float:
        """The cost of one more client, the smallest. A group takes as many steps as its first client, the largest."""
        return self._samples[client] * (1.0 if len(share) % self._lanes else 1.0 + self._stepping)

    def of(self, share: Sequence[int]) -> float:
        sizes = [self._samples[client] for client in share]
        return sum(sizes) + self._stepping * sum(sizes[:: self._lanes])

    def exchanged(self, share: Sequence[int], out: int | None, into: int | None) -> list[int]:
        """The clients of a worker after one was removed and another added."""
        left = [client for client in share if client != out]
        return left if into is None else sorted([*left, into], key=lambda client: (-self._samples[client], client))

    def differ(self, one: int, other: int | None) -> int:
        return self._samples[one] - (0 if other is None else self._samples[other])


def _even_out(shares: list[list[int]], work: _Work) -> bool:
    """Exchanges a client of the busiest worker with one of the least busy, or moves one; False if nothing improves.

    It picks the pair whose difference in size is closest to half of the difference between the workers.
    """
    loads = [work.of(share) for share in shares]
    most, least = loads.index(max(loads)), loads.index(min(loads))
    if most == least:
        return False
    half = (loads[most] - loads[least]) / 2
    pairs = [(given, taken) for given in shares[most] for taken in (None, *shares[least])]
    given, taken = min(pairs, key=lambda pair: abs(work.differ(*pair) - half))
    larger, smaller = work.exchanged(shares[most], given, taken), work.exchanged(shares[least], taken, given)
    if not larger or max(work.of(larger), work.of(smaller)) >= loads[most]:
        return False
    shares[most], shares[least] = larger, smaller
    return True
