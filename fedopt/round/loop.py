"""The round loop: select, order, collect, admit, aggregate. One loop, whatever the federation behind it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fedopt.algorithms.base import Algorithm, shares
from fedopt.drift.gradients import GRADIENT
from fedopt.drift.measuring import NOTHING, Look, Measured, RoundMeasures
from fedopt.errors import Diverged, RunStopped
from fedopt.round.admission import ANYTHING, Refusal, examine
from fedopt.round.federation import Absence, Federation, Update, WorkOrder
from fedopt.round.plausibility import Bounds, Norms, lengths, remember
from fedopt.seeding import Purpose, stream
from fedopt.vectors.exact_sum import Collector
from fedopt.vectors.layout import Vectors, largest_magnitude


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
    norms: Norms = field(default_factory=dict)
    """How long the accepted updates of the last rounds were."""

    @classmethod
    def initial(cls, x: Tensor, algorithm: Algorithm) -> ServerState:
        return cls(0, x, algorithm.server_keeps(x))


@dataclass(frozen=True)
class Terms:
    """How many clients a round is about."""

    asked: int
    """How many are chosen and get an order."""
    enough: int
    """With this many updates the round is whole, and what is still under way is called off."""
    least: int
    """With fewer updates than this the round does not count."""

    @classmethod
    def all_of(cls, cohort: int) -> Terms:
        """Every chosen client counts."""
        return cls(cohort, cohort, cohort)


@dataclass(frozen=True)
class RoundWork:
    """What one round amounted to."""

    round: int
    cohort: list[int]
    left_out: dict[int, str]
    """Clients of the cohort whose work is not in the model, each with the reason."""
    samples: int
    local_steps: int
    train_loss: float
    """Mean over the cohort, weighted as the objective is."""
    update_norm: float
    bytes_down: int
    bytes_up: int
    seconds: float
    measured: Measured = field(default_factory=Measured)


def select_cohort(clients: int, size: int, seed: int, round_: int) -> list[int]:
    """`size` of the clients without replacement, in rising order; a pure function of seed and round."""
    drawn = stream(seed, Purpose.COHORT, round_).choice(clients, size=size, replace=False)
    return sorted(int(client) for client in drawn)


def play_rounds(
    state: ServerState,
    algorithm: Algorithm,
    federation: Federation,
    terms: Terms,
    seed: int,
    look_at: Callable[[int], Look] = lambda round_: NOTHING,
    bounds: Bounds = ANYTHING,
) -> Iterator[tuple[ServerState, RoundWork]]:
    """Round after round without end; the caller records, evaluates and decides when it is enough.

    `look_at` says what to measure of a round.
    """
    share_of, collector = shares(algorithm.weighting, list(federation.samples)), Collector()
    while True:
        look = look_at(state.round + 1)
        state, work = play_round(state, algorithm, federation, share_of, terms, seed, look, collector, bounds)
        yield state, work


def play_round(
    state: ServerState,
    algorithm: Algorithm,
    federation: Federation,
    share_of: list[float],
    terms: Terms,
    seed: int,
    look: Look = NOTHING,
    collector: Collector | None = None,
    bounds: Bounds = ANYTHING,
) -> tuple[ServerState, RoundWork]:
    """One round: the state after it, and what it amounted to. RunStopped if too few updates may be used.

    A `collector` that served other rounds saves the memory of a new one. `bounds` say which updates are plausible.
    """
    start = time.perf_counter()
    collector = collector or Collector()
    collector.begin()
    number = state.round + 1
    cohort = select_cohort(len(share_of), terms.asked, seed, number)
    down = algorithm.sends_down(state.kept)
    orders = {
        client: WorkOrder(number, client, state.accepted.get(client), state.x, down, look.gradients)
        for client in cohort
    }

    samples = federation.samples
    measures = RoundMeasures(look, state.x)
    updates, refusals, absences = list[Update](), list[Refusal](), list[Absence]()
    accepted_lengths: list[dict[str, float]] = []
    with closing(federation.train(list(orders.values()))) as answers:
        for answer in answers:
            if isinstance(answer, Absence):
                absences.append(answer)
                continue
            refusal = examine(answer, orders[answer.client], samples[answer.client], bounds, state.norms)
            if refusal is not None:
                refusals.append(refusal)
                federation.refused(answer.client)
                continue
            collector.fold(answer.up, share_of[answer.client])
            measures.fold(answer, share_of[answer.client])
            # Full gradients are measured now and then, in the last round too: a run that goes on would differ.
            accepted_lengths.append(lengths({name: v for name, v in answer.up.items() if name != GRADIENT}))
            updates.append(replace(answer, up={}))  # its vectors are in the sums and need not be held
            if len(updates) == terms.enough:
                break
    if len(updates) < terms.least:
        raise _too_few(number, len(updates), terms, refusals, absences)

    totals = collector.totals()
    x, kept = algorithm.advance(state.x, state.kept, totals)
    if not all(math.isfinite(largest_magnitude(vector)) for vector in (x, *kept.values())):
        raise _diverged(number, [Refusal(client, "the new model is not finite", True) for client in cohort])
    accepted = {**state.accepted, **{update.client: number for update in updates}}

    updates.sort(key=lambda update: update.client)  # so that float sums do not depend on arrival
    weight = sum(share_of[update.client] for update in updates)
    norms = remember(state.norms, accepted_lengths)
    return ServerState(number, x, kept, accepted, norms), RoundWork(
        round=number,
        cohort=cohort,
        left_out=_left_out(cohort, updates, refusals, absences),
        samples=sum(update.samples for update in updates),
        local_steps=sum(update.steps for update in updates),
        train_loss=sum(share_of[update.client] * update.loss for update in updates) / weight,
        update_norm=float(torch.linalg.vector_norm(x - state.x)),
        bytes_down=sum(update.bytes_down for update in updates),
        bytes_up=sum(update.bytes_up for update in updates),
        measured=measures.result(totals),
        seconds=time.perf_counter() - start,
    )


def _left_out(
    cohort: list[int], updates: list[Update], refusals: list[Refusal], absences: list[Absence]
) -> dict[int, str]:
    reasons = {absence.client: absence.reason for absence in absences}
    reasons |= {refusal.client: f"its update was refused: {refusal.reason}" for refusal in refusals}
    used = {update.client for update in updates}
    return {client: reasons.get(client, "others were faster") for client in cohort if client not in used}


def _too_few(number: int, updates: int, terms: Terms, refusals: list[Refusal], absences: list[Absence]) -> RunStopped:
    if refusals and not absences:
        return _diverged(number, refusals)
    reasons = {absence.client: absence.reason for absence in absences}
    reasons |= {refusal.client: refusal.reason for refusal in refusals}
    told = "; ".join(f"client {client}: {reason}" for client, reason in sorted(reasons.items())[:10])
    return RunStopped(
        f"round {number} has {updates} of the {terms.least} updates it needs (run.min_replies): {told}; "
        "the model of the round before is kept"
    )


def _diverged(number: int, refusals: list[Refusal]) -> RunStopped:
    refusals.sort(key=lambda refusal: refusal.client)
    clients = ", ".join(str(refusal.client) for refusal in refusals[:10])
    if len(refusals) > 10:
        clients += f" and {len(refusals) - 10} more"
    diverged = any(refusal.diverged for refusal in refusals)
    remedy = "; a smaller local.lr, or local.clip = 1.0, is the likely remedy" if diverged else ""
    plural = "s" if len(refusals) > 1 else ""
    return (Diverged if diverged else RunStopped)(
        f"round {number} went wrong at client{plural} {clients}: {refusals[0].reason}{remedy}; "
        "the model of the round before is kept"
    )
