"""The record of a round: what its work amounted to, how good the new model is, and how far the clients drifted."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

from fedopt.algorithms.base import shares
from fedopt.drift.layers import Layers
from fedopt.drift.measuring import Look
from fedopt.drift.records import ClassSpread, ClientSpread, ControlDrift
from fedopt.drift.reference import Reference
from fedopt.drift.spread import best_so_far, spread_over_classes, spread_over_clients
from fedopt.errors import Diverged
from fedopt.evaluation import Evaluation, Evaluator
from fedopt.experiment import Experiment
from fedopt.federation import Federation
from fedopt.history import RoundRecord
from fedopt.parameters import Layout
from fedopt.rounds import RoundWork, ServerState


class Recorder:
    """Says what to measure of a round before it, and makes the record after it."""

    def __init__(
        self,
        experiment: Experiment,
        layout: Layout,
        federation: Federation,
        evaluate: Evaluator,
        reference: Reference | None,
    ) -> None:
        self._run, self._metrics, self._algorithm = experiment.run, experiment.metrics, experiment.algorithm
        self._clients = experiment.data.clients
        self._federation, self._evaluate, self._reference = federation, evaluate, reference
        self._layers = {"layers": Layers.of(layout), "model": Layers.whole(layout.size), "off": None}[
            experiment.metrics.drift
        ]
        self._best_by_class: list[float | None] = []

    def look_at(self, round_: int) -> Look:
        return Look(self._layers, self._metrics.wants_gradients(round_, self._run.rounds))

    def record(self, state: ServerState, work: RoundWork) -> RoundRecord:
        """Diverged if the new model is useless."""
        start = time.perf_counter()
        evaluation = self._evaluation(state, work)
        clients = self._spread_over_clients(state)
        divergence = None if self._reference is None else self._reference.divergence(state.x, work)
        return RoundRecord(
            round=work.round,
            cohort=work.cohort,
            left_out=work.left_out,
            samples=work.samples,
            local_steps=work.local_steps,
            train_loss=work.train_loss,
            test_loss=None if evaluation is None else evaluation.loss,
            test_accuracy=None if evaluation is None else evaluation.accuracy,
            update_norm=work.update_norm,
            bytes_down=work.bytes_down,
            bytes_up=work.bytes_up,
            drift=work.measured.drift,
            gradients=work.measured.gradients,
            control=self._control(state, work),
            clients=clients,
            classes=None if evaluation is None else self._spread_over_classes(evaluation),
            divergence=divergence,
            seconds=work.seconds + time.perf_counter() - start,
        )

    def save(self, folder: Path, round_: int) -> None:
        if self._reference is not None:
            self._reference.save(folder, round_)

    def restore(self, folder: Path, records: Sequence[RoundRecord]) -> None:
        """Goes on after these rounds."""
        for record in records:
            if record.classes is not None:
                self._best_by_class = best_so_far(self._best_by_class, record.classes.accuracy)
        if self._reference is not None and records:
            self._reference.restore(folder, records[-1].round)

    def _evaluation(self, state: ServerState, work: RoundWork) -> Evaluation | None:
        if state.round % self._run.eval_every and state.round != self._run.rounds:
            return None
        evaluation = self._evaluate(state.x)
        if not math.isfinite(evaluation.loss):
            raise Diverged(
                f"round {state.round}, with clients {', '.join(map(str, work.cohort[:10]))}: the test loss of "
                "the new model is not finite; a smaller local.lr, or local.clip = 1.0, is the likely remedy; "
                "the model of the round before is kept"
            )
        return evaluation

    def _spread_over_clients(self, state: ServerState) -> ClientSpread | None:
        if not self._metrics.wants_clients(state.round, self._run.rounds):
            return None
        return spread_over_clients(self._federation.evaluate(state.x, state.round), self._clients)

    def _spread_over_classes(self, evaluation: Evaluation) -> ClassSpread | None:
        self._best_by_class = best_so_far(self._best_by_class, evaluation.class_accuracy)
        return spread_over_classes(evaluation.class_accuracy, self._best_by_class)

    def _control(self, state: ServerState, work: RoundWork) -> ControlDrift | None:
        """What clients told of their controls and, when gradients are measured, what the server's is worth."""
        told = dict(work.measured.told)
        if work.measured.gradients is not None and self._algorithm.tells:
            share_of = shares(self._algorithm.weighting, list(self._federation.samples))
            mean = self._federation.mean_kept(state.accepted, share_of)
            told |= {} if mean is None else self._algorithm.check(state.kept, mean)
        return ControlDrift(**told) if told else None
