"""The embedded engine: an experiment as virtual clients in this process, without Flower and without Ray."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import numpy as np
from torch import Tensor

from clients.lanes.backends import check_products
from clients.lanes.choice import choose_backend
from clients.lanes.training import Execution, LocalTraining
from fedopt.data.batches import BatchPlan
from fedopt.data.dataset import Scaling
from fedopt.data.evaluation_shares import owners_of_tests
from fedopt.data.fingerprint import Fingerprint, fingerprint_partition
from fedopt.data.label_skew import LabelSkew, LabelSpread
from fedopt.data.partition import partition
from fedopt.data.step_counts import StepCounts
from fedopt.device import threads
from fedopt.experiment.experiment import Experiment
from fedopt.models.batchnorm import check_batches
from fedopt.round.federation import Score
from fedopt.round.selection import select_cohort
from fedopt.runs.checkpoint import Checkpoints
from fedopt.runs.directory import RunDirectory, check_unused, read_run_experiment
from fedopt.runs.history import History, RoundRecord
from fedopt.runs.observers import AnyObserver
from fedopt.runs.reference import Reference
from fedopt.runs.runner import Run
from fedopt.runs.setup import Problem, Setup, set_up
from fedopt.runs.view import RunView
from fedopt.text import count
from simulations.centralized import CentralPlan, CentralRun
from simulations.ranks import RankedFederation, Shard, is_first, launched, together
from simulations.sizing import choose_lanes, choose_recording, choose_workers
from simulations.virtual import PersonalModels, Resources, VirtualFederation


def run(experiment: Experiment, out: Path | None = None, observers: Sequence[AnyObserver] = ()) -> History:
    """Runs the experiment into `out` (a new directory below runs/ by default)."""
    with _begun(experiment, out, observers) as run:
        return run.complete()


def rounds(
    experiment: Experiment, out: Path | None = None, observers: Sequence[AnyObserver] = ()
) -> Generator[tuple[RunView, RoundRecord | None], None, History]:
    """As `run`, pausing before the first round, without a record, and after each round. Closed early, it saves the
    run."""
    with _begun(experiment, out, observers) as run:
        yield run.view, None
        with closing(run.rounds()) as playing:
            while True:
                try:
                    record = next(playing)
                except StopIteration as end:
                    history: History = end.value
                    return history
                yield run.view, record


@contextmanager
def _begun(experiment: Experiment, out: Path | None, observers: Sequence[AnyObserver]) -> Iterator[Run]:
    """A new run in its directory, before its first round."""
    if not is_first():
        serve_rank(experiment)
    if out is not None:
        check_unused(out)  # before the data are read, which may take a while
    with _prepared(experiment) as prepared:
        directory = RunDirectory.create(out, experiment)
        try:
            run = prepared.in_directory(directory, observers)
            run.keep_fingerprint(prepared.fingerprint)
            directory.keep_scaling(prepared.scaling)
            run.write_partition(prepared.labels)
            yield run
        finally:
            directory.close()


def resume(path: Path, overrides: list[str], observers: Sequence[AnyObserver] = ()) -> History:
    """Continues the run at `path` from its last checkpoint; for a finished one it only writes the summary again."""
    if not is_first():
        serve_rank(read_run_experiment(path, overrides))
    directory = RunDirectory.reopen(path, overrides)
    try:
        # Before the data are compared: changed settings may be why they differ.
        Checkpoints(path / "checkpoint", directory.experiment).check()
        with _prepared(directory.experiment) as prepared:
            continued = prepared.in_directory(directory, observers)
            continued.keep_fingerprint(prepared.fingerprint)
            directory.keep_scaling(prepared.scaling)
            continued.resume()
            continued.write_partition(prepared.labels)
            return continued.complete()
    finally:
        directory.close()


def serve_rank(experiment: Experiment) -> NoReturn:
    """Trains this rank's clients until rank 0 has completed the run, and ends this process: rank 0 alone has a
    history to return."""
    with threads(experiment.run.threads), together():
        federation = prepare(experiment).federation
        assert isinstance(federation, VirtualFederation)
        Shard(federation).serve()
    sys.exit(0)


@contextmanager
def _prepared(experiment: Experiment) -> Iterator[Prepared]:
    """Prepares the run, and closes its federation at the end."""
    with threads(experiment.run.threads), together() if launched() else nullcontext():
        prepared = prepare(experiment)
        if launched():
            assert isinstance(prepared.federation, VirtualFederation)
            prepared = replace(prepared, federation=RankedFederation(prepared.federation))
        with closing(prepared):
            yield prepared


@dataclass(frozen=True)
class Prepared:
    """A run that is ready for its first round."""

    problem: Problem
    federation: VirtualFederation | RankedFederation
    labels: LabelSpread
    fingerprint: Fingerprint
    reference: Reference | None
    how: str
    """One line on how clients are trained, and why."""
    notes: Sequence[str] = ()
    """Sentences about properties of the data."""

    scaling: Scaling | None = None

    def in_directory(self, directory: RunDirectory, observers: Sequence[AnyObserver]) -> Run:
        run = Run(directory, self.problem, self.federation, observers, reference=self.reference)
        for sentence in (self.how, *(f"note: {sentence}" for sentence in self.notes)):
            run.note(sentence)
        return run

    def close(self) -> None:
        self.federation.close()


def prepare(experiment: Experiment, setup: Setup | None = None) -> Prepared:
    """Does everything that can fail before the first round: data, partition, model, device. `setup` is that of the
    experiment, where it is known already."""
    settings = experiment.run
    setup = setup or set_up(experiment)
    task, dataset, evaluator = setup.problem.task, setup.dataset, setup.problem.evaluator
    parts = partition(dataset, experiment.data, settings.seed)
    owners = owners_of_tests(dataset, parts, settings.seed)
    pooled = experiment.algorithm.pools_data
    trained = [np.sort(np.concatenate(parts))] if pooled else parts
    cohort = 1 if pooled else experiment.cohort_size

    data = (dataset.x_train, setup.targets)
    choice = choose_backend(settings.backend, task, *data, experiment.local.decays_weights)
    check_products(settings.products, choice.backend, dataset.x_train)
    workers = 1 if pooled else choose_workers(settings.workers, experiment, dataset.x_train.device)
    lanes = settings.lanes
    if lanes == "auto":
        longest = max(len(part) for part in trained)
        lanes = choose_lanes(task, experiment, dataset.x_train[:1], longest, workers)
    evaluator.threads = workers  # idle while the model is evaluated
    counts = StepCounts.of(experiment.algorithm, experiment.local, settings.seed)
    check_batches(task.module, dataset.x_train[:1], [len(part) for part in trained], counts)

    def evaluate(x: Tensor, personal: PersonalModels | None) -> Sequence[Score]:
        clients = range(len(parts))
        return (
            evaluator.by_owner(x, owners, clients) if personal is None else evaluator.of_each(personal, owners, clients)
        )

    record = choose_recording(settings.cuda_graphs, dataset.x_train.device, choice.backend, task.draws)
    federation = VirtualFederation(
        LocalTraining(
            task, experiment.algorithm, experiment.local, settings.seed, experiment.server, experiment.model.batchnorm
        ),
        data,
        trained,
        Execution(choice.backend, min(lanes, cohort), settings.products, record),
        Resources(cohort, workers),
        channel=experiment.channel.channel,
        evaluate=evaluate,
        plan=_pooled_plan(experiment, parts) if pooled else None,
    )
    reference = (
        CentralRun(
            task,
            counts,
            data,
            federation.samples,
            products=settings.products,
        )
        if experiment.metrics.divergence and not pooled
        else None
    )
    names = dataset.names_of(parts)
    if dataset.has_numbers:
        sizes = [len(part) for part in parts]
        labels = LabelSpread(classes=list(dataset.class_names), sizes=sizes, clients=list(names) or None)
    else:
        labels = LabelSkew.of(dataset.y_train.cpu().numpy(), parts, dataset.classes).spread(dataset.class_names, names)
    processes = count(workers, "process", "processes")
    exactness = "" if settings.products == "full" else f"; products in {settings.products}"
    clients = count(federation.lanes, "client")
    how = f"training in {processes}, up to {clients} at a time in each; backend: {choice.backend}, {choice.why}"
    fingerprint = Fingerprint(data=setup.data_sha256, partition=fingerprint_partition(parts))
    return Prepared(
        setup.problem, federation, labels, fingerprint, reference, how + exactness, setup.notes, dataset.scaling
    )


def _pooled_plan(experiment: Experiment, parts: Sequence[np.ndarray]) -> Callable[[int], BatchPlan]:
    """The minibatches of all data in one place, for a round: as many samples as its clients would see."""
    sizes, cohort, seed = [len(part) for part in parts], experiment.cohort_size, experiment.run.seed
    plan = CentralPlan(sum(sizes), sizes, StepCounts.of(experiment.algorithm, experiment.local, seed))
    return lambda round_: plan(round_, select_cohort(len(sizes), cohort, seed, round_))
