"""The round loop: select, order, collect, admit, aggregate. One loop, whatever the federation behind it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fedopt.admission import Refusal, examine
from fedopt.aggregation import Collector
from fedopt.algorithms.base import Algorithm, shares
from fedopt.errors import RunStopped
from fedopt.federation import Federation, Update, WorkOrder
from fedopt.parameters import Vectors
from fedopt.seeding import Purpose, stream


@dataclass(frozen=True)
class ServerState:
    """All the server knows between rounds. A round makes a new one; nothing is changed in place."""

    round: int
    """Rounds completed."""
    x: Tensor
    """The global model, [P]."""
    kept: Vectors
    """What the algorithm keeps beside it."""
    accepted: Mapping[int, int] = field(default_factory=dict)
    """For each client that has taken part, the last round whose update of it is in the model."""

    @classmethod
    def initial(cls, x: Tensor, algorithm: Algorithm) -> ServerState:
        return cls(0, x, algorithm.server_keeps(x))


@dataclass(frozen=True)
class RoundWork:
    """What one round amounted to."""

    round: int
    cohort: list[int]
    samples: int
    local_steps: int
    train_loss: float
    """Mean over the cohort, weighted as the objective is."""
    update_norm: float
    bytes_down: int
    bytes_up: int
    seconds: float


def select_cohort(clients: int, size: int, seed: int, round_: int) -> list[int]:
    """`size` of the clients without replacement, in rising order; a pure function of seed and round."""
    drawn = stream(seed, Purpose.COHORT, round_).choice(clients, size=size, replace=False)
    return sorted(int(client) for client in drawn)


def play_rounds(
    state: ServerState, algorithm: Algorithm, federation: Federation, cohort_size: int, seed: int
) -> Iterator[tuple[ServerState, RoundWork]]:
    """Round after round without end; the caller records, evaluates and decides when it is enough."""
    share_of = shares(algorithm.weighting, list(federation.samples))
    while True:
        state, work = play_round(state, algorithm, federation, share_of, cohort_size, seed)
        yield state, work


def play_round(
    state: ServerState,
    algorithm: Algorithm,
    federation: Federation,
    share_of: list[float],
    cohort_size: int,
    seed: int,
) -> tuple[ServerState, RoundWork]:
    """One round: the state after it, and what it amounted to. RunStopped if an update may not be used."""
    start = time.perf_counter()
    number = state.round + 1
    cohort = select_cohort(len(share_of), cohort_size, seed, number)
    down = algorithm.sends_down(state.kept)
    orders = {client: WorkOrder(number, client, state.accepted.get(client), state.x, down) for client in cohort}

    collector, updates, refusals = Collector(), list[Update](), list[Refusal]()
    for update in federation.train(list(orders.values())):
        refusal = examine(update, orders[update.client], federation.samples[update.client])
        if refusal is not None:
            refusals.append(refusal)
            continue
        collector.fold(update.up, share_of[update.client])
        updates.append(replace(update, up={}))  # its vectors are in the sums and need not be held
    if refusals:
        raise _stopped(number, refusals)

    if not updates:
        raise RunStopped(f"round {number}: none of the clients {cohort[:10]} sent an update")
    totals = collector.totals()
    x, kept = algorithm.advance(state.x, state.kept, totals)
    if not all(bool(torch.isfinite(vector).all()) for vector in (x, *kept.values())):
        raise _stopped(number, [Refusal(client, "the new model is not finite", True) for client in cohort])
    accepted = {**state.accepted, **{update.client: number for update in updates}}

    updates.sort(key=lambda update: update.client)  # so that float sums do not depend on arrival
    weight = sum(share_of[update.client] for update in updates)
    return ServerState(number, x, kept, accepted), RoundWork(
        round=number,
        cohort=cohort,
        samples=sum(update.samples for update in updates),
        local_steps=sum(update.steps for update in updates),
        train_loss=sum(share_of[update.client] * update.loss for update in updates) / weight,
        update_norm=float(torch.linalg.vector_norm(x - state.x)),
        bytes_down=sum(update.bytes_down for update in updates),
        bytes_up=sum(update.bytes_up for update in updates),
        seconds=time.perf_counter() - start,
    )


def _stopped(number: int, refusals: list[Refusal]) -> RunStopped:
    refusals.sort(key=lambda refusal: refusal.client)
    clients = ", ".join(str(refusal.client) for refusal in refusals[:10])
    if len(refusals) > 10:
        clients += f" and {len(refusals) - 10} more"
    remedy = (
        "; a smaller local.lr, or local.clip = 1.0, is the likely remedy"
        if any(refusal.diverged for refusal in refusals)
        else ""
    )
    plural = "s" if len(refusals) > 1 else ""
    return RunStopped(
        f"round {number} went wrong at client{plural} {clients}: {refusals[0].reason}{remedy}; "
        "the model of the round before is kept"
    )
