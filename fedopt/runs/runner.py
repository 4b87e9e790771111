"""One run from its start, or resume, to its summary: commits rounds to the run directory and informs observers."""

from __future__ import annotations

import shlex
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fedopt.data.fingerprint import Fingerprint
from fedopt.data.label_skew import LabelSpread
from fedopt.data.step_counts import StepCounts
from fedopt.errors import Diverged, FedoptError, NotStored, RunStopped
from fedopt.experiment.experiment import Experiment
from fedopt.round.federation import Federation
from fedopt.round.loop import Rounds, Rules
from fedopt.round.plausibility import Bounds
from fedopt.round.selection import Terms
from fedopt.round.state import ServerState
from fedopt.runs.checkpoint import Checkpoints
from fedopt.runs.directory import RunDirectory
from fedopt.runs.history import Final, History, RoundRecord, summarize
from fedopt.runs.interruption import uninterrupted
from fedopt.runs.model_file import ModelFacts
from fedopt.runs.observers import AnyObserver, Observers
from fedopt.runs.observers import Observer as Observer
from fedopt.runs.rate_factors import factors_after, follows_loss
from fedopt.runs.recorder import Draft, Recorder
from fedopt.runs.reference import Reference
from fedopt.runs.setup import Problem
from fedopt.runs.view import RunView
from fedopt.schedules.plan import RateFactors
from fedopt.storage.files import storing
from fedopt.vectors.layout import Layout, fingerprint, state_of

WORTH_GOING_AHEAD = 0.05
"""The next round is trained while a model is evaluated if evaluation takes more than this share of a round."""

CHECKPOINT_SHARE = 0.05
"""The share of the time that checkpoints may take with checkpoint_every = "auto"."""


class Interrupted(FedoptError):
    """The user stopped the run; it is saved."""

    exit_status = 130


class Run:
    """A run in progress over any federation."""

    def __init__(
        self,
        directory: RunDirectory,
        problem: Problem,
        federation: Federation,
        observers: Sequence[AnyObserver] = (),
        terms: Terms | None = None,
        command: str = "fedopt run",
        reference: Reference | None = None,
    ) -> None:
        """`terms` are those of a simulation by default; `command` is the one that resumes such a run. `reference` is a
        centralized run to measure the divergence from."""
        self._directory, self._experiment = directory, directory.experiment
        self._task, self._federation, self._evaluate = problem.task, federation, problem.evaluator
        self._observers, self._command = Observers(observers), command
        self._terms = terms or _strict(self._experiment)
        self._layout = Layout.with_statistics(problem.task.module)
        self._method = self._experiment.method.on(problem.task.module)
        self._checkpoints = Checkpoints(directory.path / "checkpoint", directory.experiment)
        self._state = ServerState.initial(self._layout.flatten(problem.task.module), self._method)
        self._records: list[RoundRecord] = []
        self._draft: Draft | None = None
        """A round that is trained but does not count yet."""
        self._stop = False
        """Whether an observer has raised StopRun."""
        self._recorder = Recorder(
            self._experiment, self._method, self._layout.trained, federation, problem.evaluator, reference
        )
        self._began, self._seconds_before = time.perf_counter(), 0.0
        self._saved_round, self._saved_at, self._save_cost = -1, self._began, 0.0

    def resume(self) -> None:
        """Loads the last checkpoint. BrokenRun, and nothing is changed, if it is incomplete or was edited."""
        if not self._checkpoints.exists and not self._directory.has_records:
            return  # killed before its first checkpoint, and so before its first round
        self._state, self._seconds_before = self._checkpoints.load(self._state, self._federation)
        self._saved_round = self._state.round
        with self._writing():
            self._records = self._directory.rewind(self._state.round)
            self._directory.write_experiment()
        self._recorder.restore(self._directory.path / "checkpoint", self._records)

    def write_partition(self, labels: LabelSpread) -> None:
        """Writes partition.json."""
        with self._writing():
            self._directory.write_partition(labels)

    def keep_fingerprint(self, found: Fingerprint) -> None:
        """Writes fingerprint.json; DataUnavailable if the run was started on other data."""
        with self._writing():
            self._directory.keep_fingerprint(found)

    def note(self, sentence: str) -> None:
        """Tells the observers: which backend trains, what is unusual in the data."""
        self._observers.note(sentence)

    @property
    def view(self) -> RunView:
        """What may be read of the run while it is in progress."""
        return RunView(self._experiment, self._directory.path, self._task.module, self._weights)

    def complete(self) -> History:
        """Runs the remaining rounds. If an error or Ctrl-C ends it early, the last good state is saved first."""
        rounds = self.rounds()
        while True:
            try:
                next(rounds)
            except StopIteration as end:
                history: History = end.value
                return history

    def rounds(self) -> Generator[RoundRecord, None, History]:
        """As `complete`, pausing after each round with its record. Closed early, it saves the run."""
        if self._saved_round < 0:
            self._save()
        try:
            with self.resumable(), self._writing():
                before = time.perf_counter()
                self._observers.begin(self.view)
                self._began += time.perf_counter() - before  # a tracker's start is no part of the run
                self._observers.started(self._directory.path, self._state.round, self._experiment.run.rounds)
            yield from self._saving_at_the_end()
            history = self._finish()
            with self._writing():
                self._observers.finished(history)
        except BaseException as error:
            try:
                self._observers.ended()
            except Exception as another:  # of an observer; it does not hide why the run has stopped
                error.add_note(str(another))
            raise
        with self._writing():
            self._observers.ended()
        return history

    def _saving_at_the_end(self) -> Iterator[RoundRecord]:
        """The remaining rounds. However they end, what has been committed is saved."""
        try:
            with self.resumable():
                yield from self._play()
        except KeyboardInterrupt:
            with uninterrupted(), self._saved_anyway():
                self._commit_draft()
            raise Interrupted(f"stopped after round {self._state.round}; {self._how_to_resume()}") from None
        except RunStopped:
            with self._saved_anyway():
                self._commit_draft()
            raise
        except GeneratorExit:
            self._save()
            raise

    def _play(self) -> Iterator[RoundRecord]:
        if self._is_over():
            return
        with self._writing():
            self._directory.withdraw_end()
        experiment = self._experiment
        counts = StepCounts.of(experiment.algorithm, experiment.local, experiment.run.seed)
        bounds = Bounds(
            experiment.admission,
            None if experiment.algorithm.pools_data else counts.at,
            vectors=self._method.sends_up,
            numbers=experiment.algorithm.sends_numbers,
            norms=self._method.norms,
        )
        rules = Rules(self._terms, experiment.run.seed, bounds)
        rounds = Rounds(self._method, self._federation, rules, self._recorder.plan, self._factors)
        for state, work in rounds.play(self._state):
            yield from self._commit_draft(ahead=True)  # its model has been evaluated while this round was trained
            if self._stop:
                return
            if self._checkpoint_is_due():
                self._save()
            self._draft = self._recorder.begin(state, work)
            if self._goes_ahead(state):
                continue
            yield from self._commit_draft()
            if self._is_over():
                return
            if self._checkpoint_is_due():
                self._save()

    def _goes_ahead(self, state: ServerState) -> bool:
        """Whether the next round is trained while this one's model is evaluated. It changes no result."""
        run = self._experiment.run
        last = state.round >= run.rounds or run.stop_at_target
        last = last or follows_loss(self._experiment)  # the next round's rates wait for the evaluation
        return self._federation.trains_ahead and not last and self._recorder.share > WORTH_GOING_AHEAD

    def _factors(self) -> RateFactors:
        return factors_after(self._experiment, self._records)

    def _commit_draft(self, ahead: bool = False) -> list[RoundRecord]:
        """Commits the round that was trained last, if that is still to do, and returns its record.

        `ahead`: the next one is trained.
        """
        draft = self._draft
        if draft is None:
            return []
        try:
            record = self._recorder.finish(draft)
        except RunStopped:
            self._draft = None  # it never counts
            raise
        with uninterrupted():
            with self._writing():
                if self._keeps_model_of(draft.state.round):
                    self._keep_model(draft.state)
                self._directory.append(record)
            self._state, self._draft = draft.state, None
            self._records.append(record)
            self._federation.commit(draft.state.accepted, ahead)
        with self._writing():
            self._stop = self._observers.round_done(record) or self._stop
        return [record]

    @contextmanager
    def _saved_anyway(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._save()

    def _is_over(self) -> bool:
        run = self._experiment.run
        if self._stop or self._state.round >= run.rounds:
            return True
        accuracy = self._records[-1].test_accuracy if self._records else None
        target = run.target_accuracy
        return run.stop_at_target and target is not None and accuracy is not None and accuracy >= target

    def _checkpoint_is_due(self) -> bool:
        every = self._experiment.run.checkpoint_every
        if every == "auto":
            return time.perf_counter() - self._saved_at >= self._save_cost / CHECKPOINT_SHARE
        return self._state.round - self._saved_round >= every

    def _save(self) -> None:
        if self._saved_round == self._state.round:
            return
        start = time.perf_counter()
        with self._writing():
            self._recorder.save(self._directory.path / "checkpoint", self._state.round)
            self._checkpoints.save(self._state, self._federation, self._seconds())
            self._directory.write_model(self._weights(), self._about(self._state))
        self._saved_round, self._saved_at = self._state.round, time.perf_counter()
        self._save_cost = self._saved_at - start

    def _finish(self) -> History:
        self._save()
        weights = self._weights()
        with self._writing():
            self._directory.write_model(weights, self._about(self._state))
            if self._experiment.run.keep_models:
                self._keep_model(self._state)
        last = self._records[-1]
        if last.test_loss is None:  # stopped here, and resumed to no further round
            evaluation = self._evaluate(self._state.x)
            accuracy, loss, regression = evaluation.accuracy, evaluation.loss, evaluation.regression
        else:
            accuracy, loss, regression = last.test_accuracy, last.test_loss, last.regression
        personal = last.personal_accuracy
        if personal is None:
            personal = self._recorder.personal_accuracy(self._state)
        final = Final(test_accuracy=accuracy, regression=regression, test_loss=loss, personal_accuracy=personal)
        summary = summarize(
            self._experiment,
            self._records,
            final,
            seconds=round(self._seconds(), 3),
            device=str(self._state.x.device),
            engine=self._federation.name,
            weights_sha256=fingerprint(weights),
        )
        with self._writing():
            self._directory.write_summary(summary)
        return History(self._experiment, self._directory.path, tuple(self._records), summary)

    def _weights(self) -> dict[str, Any]:
        return state_of(self._task.module, self._layout, self._state.x)

    def _about(self, state: ServerState) -> ModelFacts:
        return ModelFacts(round=state.round, sample_shape=self._evaluate.sample_shape, classes=self._evaluate.classes)

    def _keeps_model_of(self, round_: int) -> bool:
        every = self._experiment.run.keep_models
        return every > 0 and round_ % every == 0

    def _keep_model(self, state: ServerState) -> None:
        self._directory.keep_model(state_of(self._task.module, self._layout, state.x), self._about(state))

    def _seconds(self) -> float:
        return self._seconds_before + time.perf_counter() - self._began

    @contextmanager
    def resumable(self) -> Iterator[None]:
        """Adds to a RunStopped how to resume, unless a resumed run would end in the same way."""
        try:
            yield
        except Diverged:
            raise
        except RunStopped as error:
            raise RunStopped(f"{error}; {self._how_to_resume()}") from error

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """For code that writes files of the run: a failure says which round is saved, and how to resume."""
        path = self._directory.path
        try:
            with storing(path):
                yield
        except NotStored as error:
            saved = f"the run is saved up to round {max(0, self._saved_round)}"
            if path.exists():
                raise NotStored(error.reason, f"{saved}; {self._how_to_resume()}") from error
            how = f"continue it in its new place with: {self._command} --resume DIR"
            raise NotStored(error.reason, f"{saved}; {how}") from error

    def _how_to_resume(self) -> str:
        return f"continue with: {self._command} --resume {shlex.quote(str(self._directory.path))}"


def _strict(experiment: Experiment) -> Terms:
    """In a simulation no client is late or lost: a missing update is an error in the experiment."""
    if experiment.algorithm.pools_data:
        return Terms.all_of(1)
    cohort = experiment.cohort_size
    return Terms(cohort, cohort, experiment.run.min_replies or cohort)
