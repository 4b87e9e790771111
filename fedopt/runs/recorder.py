"""The record of a round: its work, the evaluation of the new model, and how far the clients drifted."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch

from fedopt.algorithms.base import shares
from fedopt.drift.layers import Layers
from fedopt.drift.measuring import MeasurePlan
from fedopt.drift.records import ClassSpread, ClientSpread
from fedopt.errors import Diverged
from fedopt.experiment.experiment import Experiment
from fedopt.round.federation import Federation, Score
from fedopt.round.loop import RoundWork
from fedopt.round.method import Method
from fedopt.round.state import ServerState
from fedopt.runs.evaluation import Evaluation, Evaluator
from fedopt.runs.history import RoundRecord
from fedopt.runs.reference import Reference
from fedopt.runs.spread import accuracy_over_samples, best_so_far, spread_over_classes, spread_over_clients
from fedopt.schedules.plan import RatePlan
from fedopt.vectors.layout import Layout


@dataclass(frozen=True)
class Draft:
    """A record of a round before the evaluation of its model is known."""

    state: ServerState
    work: RoundWork
    evaluation: Future[Evaluation] | None
    clients: ClientSpread | None
    personal_accuracy: float | None
    algorithm: dict[str, float | None] | None
    divergence: float | None
    seconds: float
    """Wall time so far."""


class Recorder:
    """Plans what to measure of a round, and makes the record after it."""

    def __init__(
        self,
        experiment: Experiment,
        method: Method,
        layout: Layout,
        federation: Federation,
        evaluate: Evaluator,
        reference: Reference | None,
    ) -> None:
        """`layout` is that of the trained parameters."""
        self._method = method
        self._run, self._metrics, self._algorithm = experiment.run, experiment.metrics, experiment.algorithm
        self._clients = experiment.data.clients
        self._rates, self._server_rates = experiment.local.rates, experiment.server.plan(experiment.algorithm.server_lr)
        self._federation, self._evaluate, self._reference = federation, evaluate, reference
        self._layers = {"layers": Layers.of(layout), "model": Layers.whole(layout.size), "off": None}[
            experiment.metrics.drift
        ]
        self._best_by_class: list[float | None] = []
        self._aside = ThreadPoolExecutor(1, "evaluation")
        self.share = 0.0
        """The share of the last round that its evaluation took."""

    def plan(self, round_: int) -> MeasurePlan:
        """What to measure of that round."""
        return MeasurePlan(self._layers, self._metrics.wants_gradients(round_, self._run.rounds))

    def begin(self, state: ServerState, work: RoundWork) -> Draft:
        """Takes the measures that the next round would overwrite; the evaluation goes on in a thread."""
        start = time.perf_counter()
        scores = self._scores(state) if self._metrics.wants_clients(state.round, self._run.rounds) else []
        wanted = state.round % self._run.eval_every == 0 or state.round == self._run.rounds
        evaluation = None
        if wanted:
            evaluation = self._aside.submit(self._evaluate_timed, state, work, torch.get_num_threads())
        return Draft(
            state=state,
            work=work,
            evaluation=evaluation,
            clients=spread_over_clients(scores, self._clients),
            personal_accuracy=self._of_own_models(scores),
            algorithm=self._algorithm_record(state, work),
            divergence=None if self._reference is None else self._reference.divergence(state.x, work),
            seconds=work.seconds + time.perf_counter() - start,
        )

    def finish(self, draft: Draft) -> RoundRecord:
        """Waits for the evaluation; Diverged if the loss of the new model is not finite."""
        start = time.perf_counter()
        work = draft.work
        evaluation = self._outcome(draft)
        return RoundRecord(
            round=work.round,
            cohort=work.cohort,
            left_out=work.left_out,
            samples=work.samples,
            local_steps=work.local_steps,
            train_loss=work.train_loss,
            test_loss=None if evaluation is None else evaluation.loss,
            test_accuracy=None if evaluation is None else evaluation.accuracy,
            regression=None if evaluation is None else evaluation.regression,
            personal_accuracy=draft.personal_accuracy,
            lr=_changing(self._rates, work.round, work.factors.local),
            server_lr=_changing(self._server_rates, work.round, work.factors.server),
            update_norm=work.update_norm,
            bytes_down=work.bytes_down,
            bytes_up=work.bytes_up,
            drift=work.measured.drift,
            gradients=work.measured.gradients,
            moments=work.measured.moments,
            algorithm=draft.algorithm,
            clients=draft.clients,
            classes=None if evaluation is None else self._spread_over_classes(evaluation),
            divergence=draft.divergence,
            seconds=draft.seconds + time.perf_counter() - start,
        )

    def save(self, folder: Path, round_: int) -> None:
        if self._reference is not None:
            self._reference.save(folder, round_)

    def restore(self, folder: Path, records: Sequence[RoundRecord]) -> None:
        """Continues after these rounds."""
        for record in records:
            if record.classes is not None:
                self._best_by_class = best_so_far(self._best_by_class, record.classes.accuracy)
        if self._reference is not None and records:
            self._reference.restore(folder, records[-1].round)

    def _evaluate_timed(self, state: ServerState, work: RoundWork, threads: int) -> Evaluation:
        torch.set_num_threads(threads)  # a thread begins with a setting of its own
        start = time.perf_counter()
        evaluation = self._evaluate(state.x)
        seconds = time.perf_counter() - start
        self.share = seconds / (work.seconds + seconds)
        return evaluation

    def _outcome(self, draft: Draft) -> Evaluation | None:
        evaluation = None if draft.evaluation is None else draft.evaluation.result()
        if evaluation is not None and not math.isfinite(evaluation.loss):
            clients = ", ".join(map(str, draft.work.cohort[:10]))
            raise Diverged(
                f"round {draft.state.round}, with clients {clients}: the test loss of "
                "the new model is not finite; a smaller local.lr, or local.clip = 1.0, is the likely remedy; "
                "the model of the round before is kept"
            )
        return evaluation

    def personal_accuracy(self, state: ServerState) -> float | None:
        """Accuracy of the clients' own models; None if they have none, or if clients are never evaluated."""
        wanted = self._method.is_personal and self._metrics.clients_every > 0
        return self._of_own_models(self._scores(state)) if wanted else None

    def _scores(self, state: ServerState) -> Sequence[Score]:
        return self._federation.evaluate(state.x, state.round, state.accepted)

    def _of_own_models(self, scores: Sequence[Score]) -> float | None:
        return accuracy_over_samples(scores) if self._method.is_personal else None

    def _spread_over_classes(self, evaluation: Evaluation) -> ClassSpread | None:
        self._best_by_class = best_so_far(self._best_by_class, evaluation.class_accuracy)
        return spread_over_classes(evaluation.class_accuracy, self._best_by_class)

    def _algorithm_record(self, state: ServerState, work: RoundWork) -> dict[str, float | None] | None:
        """The algorithm's own numbers: those that clients sent and, in rounds that measure gradients, its check."""
        kind = self._algorithm.record
        if kind is None:
            return None
        numbers = {name: number for name, number in work.numbers.items() if name in kind.model_fields}
        if work.measured.gradients is not None:
            share_of = shares(self._algorithm.weighting, list(self._federation.samples))
            mean = self._federation.mean_state(state.accepted, share_of)
            numbers |= {} if mean is None else self._method.check(state.server, mean)
        return kind(**numbers).model_dump() if numbers else None


def _changing(plan: RatePlan, round_: int, factor: float) -> float | None:
    """The rate of the round's first step; None where all rates are the same."""
    return None if plan.is_constant else factor * plan.rate(round_)
