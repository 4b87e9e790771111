"""The round loop: select, order, collect, admit, gather, advance. One loop, whatever the federation behind it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fedopt.algorithms.base import SURVEYED, ServerRound, shares
from fedopt.drift.gradients import GRADIENT
from fedopt.drift.measuring import NO_MEASURES, Measured, MeasurePlan, RoundMeasures
from fedopt.errors import Diverged, RunStopped
from fedopt.round.admission import NO_BOUNDS, Refusal, examine
from fedopt.round.batchnorm import BatchNorms
from fedopt.round.federation import Absence, Broadcast, Federation, Update, WorkOrder
from fedopt.round.method import Method
from fedopt.round.plausibility import Bounds, lengths, remember
from fedopt.round.selection import Terms, select_cohort
from fedopt.round.state import ServerState
from fedopt.schedules.plan import NO_FACTORS, RateFactors
from fedopt.vectors.layout import Vectors, largest_magnitude
from fedopt.vectors.totals import Totals


@dataclass(frozen=True)
class Rules:
    """What a round is held to."""

    terms: Terms
    seed: int
    bounds: Bounds = NO_BOUNDS
    """Which updates are plausible."""


@dataclass(frozen=True)
class RoundWork:
    """The outcome of one round."""

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
    numbers: Mapping[str, float] = field(default_factory=dict)
    """Weighted means of the algorithm's numbers, over the clients that sent them, and what it reports itself."""
    factors: RateFactors = NO_FACTORS
    """Of its rates."""


class Rounds:
    """Plays rounds of one method over one federation."""

    def __init__(
        self,
        method: Method,
        federation: Federation,
        rules: Rules,
        plan: Callable[[int], MeasurePlan] = lambda round_: NO_MEASURES,
        factors: Callable[[], RateFactors] = RateFactors,
    ) -> None:
        """`plan` says what to measure of a round, by its number; `factors` those of the next round's rates."""
        self._method, self._federation, self._rules, self._plan = method, federation, rules, plan
        self._factors = factors
        self._share_of = shares(method.algorithm.weighting, list(federation.samples))
        self._collector = method.gathering.collector()

    def play(self, state: ServerState) -> Iterator[tuple[ServerState, RoundWork]]:
        """Round after round without end; the caller records, evaluates and decides when to stop."""
        while True:
            state, work = self.play_one(state)
            yield state, work

    def play_one(self, state: ServerState) -> tuple[ServerState, RoundWork]:
        """One round: the state after it, and its outcome. RunStopped if too few updates may be used."""
        start = time.perf_counter()
        terms, number = self._rules.terms, state.round + 1
        plan = self._plan(number)
        cohort = select_cohort(len(self._share_of), terms.asked, self._rules.seed, number)
        broadcast, surveyed = self._opened(state, plan, cohort)
        norms = self._method.norms
        measures = RoundMeasures(plan, norms.trained(state.x))
        answers = self._collect(state, broadcast, surveyed.clients or cohort, measures)
        answers.absences.extend(surveyed.absences)
        answers.refusals.extend(surveyed.refusals)
        if len(answers.updates) < terms.least:
            raise _too_few(number, terms, answers)

        totals = self._collector.totals()
        surveyed_mean = {name: vector for name, vector in broadcast.down.items() if name == SURVEYED}
        round_ = ServerRound(number, self._rules.seed, broadcast.factors)
        x, server = self._advance(round_, state, surveyed_mean, totals)
        if not all(math.isfinite(largest_magnitude(vector)) for vector in (x, *server.values())):
            raise _diverged(number, [Refusal(client, "the new model is not finite", True) for client in cohort])
        updates = sorted(answers.updates, key=lambda update: update.client)  # float sums then ignore arrival
        weight = sum(self._share_of[update.client] for update in updates)
        losses = sum(self._share_of[update.client] * update.numbers.loss for update in updates)
        accepted = {**state.accepted, **{update.client: number for update in updates}}
        return ServerState(number, x, server, accepted, remember(state.norms, answers.lengths)), RoundWork(
            round=number,
            cohort=cohort,
            left_out=_left_out(cohort, answers),
            samples=sum(update.numbers.samples for update in updates),
            local_steps=sum(update.numbers.steps for update in updates),
            train_loss=losses / weight,
            update_norm=float(torch.linalg.vector_norm(norms.trained(x - state.x))),
            bytes_down=sum(update.bytes_down for update in (*surveyed.updates, *updates)),
            bytes_up=sum(update.bytes_up for update in (*surveyed.updates, *updates)),
            measured=answers.measures.result(norms.of_totals(totals)),
            numbers=self._method.numbers_of(round_, totals),
            factors=broadcast.factors,
            seconds=time.perf_counter() - start,
        )

    def broadcast(self, state: ServerState) -> Broadcast:
        """What the clients of the next round get with their orders, without a round being played."""
        cohort = select_cohort(len(self._share_of), self._rules.terms.asked, self._rules.seed, state.round + 1)
        return self._opened(state, NO_MEASURES, cohort)[0]

    def _opened(self, state: ServerState, plan: MeasurePlan, cohort: list[int]) -> tuple[Broadcast, _Answers]:
        """The broadcast of the next round, and who answered if the algorithm surveys the cohort before."""
        down = self._method.sends_down(state.server)
        broadcast = Broadcast(state.round + 1, state.x, down, plan.gradients, factors=self._factors())
        if self._method.algorithm.surveys:
            return self._survey(state, broadcast, cohort)
        return broadcast, _Answers(RoundMeasures(NO_MEASURES, state.x))

    def _survey(self, state: ServerState, broadcast: Broadcast, cohort: list[int]) -> tuple[Broadcast, _Answers]:
        """Collects the cohort's full gradients at x: the broadcast with their mean, and who answered."""
        asking = replace(broadcast, down={}, gradient=True, survey=True)
        answers = self._collect(state, asking, cohort, RoundMeasures(NO_MEASURES, state.x))
        if len(answers.updates) < self._rules.terms.least:
            raise _too_few(broadcast.round, self._rules.terms, answers)
        mean = self._collector.totals().mean(GRADIENT)
        return replace(broadcast, down={**broadcast.down, SURVEYED: mean}), answers

    def _collect(
        self, state: ServerState, broadcast: Broadcast, cohort: list[int], measures: RoundMeasures
    ) -> _Answers:
        """Trains the cohort and folds in what is admitted, until there is enough."""
        answers, samples = _Answers(measures), self._federation.samples
        orders = [WorkOrder(client, state.accepted.get(client)) for client in cohort]
        self._collector.begin()
        with closing(self._federation.train(broadcast, orders)) as arriving:
            for answer in arriving:
                if isinstance(answer, Absence):
                    answers.absences.append(answer)
                    continue
                refusal = examine(answer, broadcast, samples[answer.client], self._rules.bounds, state.norms)
                if refusal is not None:
                    answers.refusals.append(refusal)
                    self._federation.refused(answer.client)
                    continue
                share = self._share_of[answer.client]
                self._collector.fold(answer.client, answer.up, answer.numbers.own, share)
                answers.admit(answer, share, self._method.norms)
                if len(answers.updates) == self._rules.terms.enough and not broadcast.survey:
                    break
        return answers

    def _advance(
        self, round_: ServerRound, state: ServerState, surveyed: Vectors, totals: Totals
    ) -> tuple[Tensor, Vectors]:
        x, server = self._method.advance(round_, state.x, {**state.server, **surveyed}, totals)
        return x, {name: vector for name, vector in server.items() if name not in surveyed}


@dataclass(frozen=True)
class _Answers:
    """What came of one round's orders."""

    measures: RoundMeasures
    updates: list[Update] = field(default_factory=list)
    """Without their vectors, which are in the sums."""
    lengths: list[dict[str, float]] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    absences: list[Absence] = field(default_factory=list)

    @property
    def clients(self) -> list[int]:
        """Those whose updates were admitted."""
        return sorted(update.client for update in self.updates)

    def admit(self, update: Update, share: float, norms: BatchNorms) -> None:
        self.measures.fold(update.client, norms.cut(update.up), share)
        # Full gradients are measured now and then, in the last round too: a run that goes on would differ.
        self.lengths.append(lengths({name: v for name, v in norms.apart(update.up).items() if name != GRADIENT}))
        self.updates.append(replace(update, up={}))


def _left_out(cohort: list[int], answers: _Answers) -> dict[int, str]:
    reasons = {absence.client: absence.reason for absence in answers.absences}
    reasons |= {refusal.client: f"its update was refused: {refusal.reason}" for refusal in answers.refusals}
    used = {update.client for update in answers.updates}
    return {client: reasons.get(client, "others were faster") for client in cohort if client not in used}


def _too_few(number: int, terms: Terms, answers: _Answers) -> RunStopped:
    if answers.refusals and not answers.absences:
        return _diverged(number, answers.refusals)
    reasons = {absence.client: absence.reason for absence in answers.absences}
    reasons |= {refusal.client: refusal.reason for refusal in answers.refusals}
    listed = "; ".join(f"client {client}: {reason}" for client, reason in sorted(reasons.items())[:10])
    return RunStopped(
        f"round {number} has {len(answers.updates)} of the {terms.least} updates it needs (run.min_replies): {listed}; "
        "the model of the round before is kept"
    )


def _diverged(number: int, refusals: list[Refusal]) -> RunStopped:
    refusals = sorted(refusals, key=lambda refusal: refusal.client)
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
