"""The embedded engine: an experiment as virtual clients in this process, without Flower and without Ray."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from clients.lanes.backends import check_products
from clients.lanes.choice import choose_backend
from fedopt.data.evaluation_shares import owners_of_tests
from fedopt.data.fingerprint import Fingerprint, fingerprint_partition
from fedopt.data.label_skew import LabelSkew
from fedopt.data.partition import partition
from fedopt.device import threads
from fedopt.drift.records import LabelSpread
from fedopt.experiment.experiment import Experiment
from fedopt.runs.checkpoint import Checkpoints
from fedopt.runs.directory import RunDirectory, check_unused, read_run_experiment
from fedopt.runs.evaluation import Evaluator
from fedopt.runs.history import History
from fedopt.runs.reference import Reference
from fedopt.runs.runner import Listener, Observer, Run
from fedopt.runs.setup import set_up
from fedopt.task import Task
from simulations.centralized import CentralRun
from simulations.ranks import RankedFederation, Shard, is_first, launched, together
from simulations.sizing import choose_lanes, choose_recording, choose_workers
from simulations.virtual import VirtualFederation


def run(experiment: Experiment, out: Path | None = None, observers: Sequence[Observer] = ()) -> History:
    """Runs the experiment into `out` (a new directory below runs/ by default)."""
    if out is not None and is_first():
        check_unused(out)  # before the data are read, which may take a while
    with _prepared(experiment) as prepared:
        directory = RunDirectory.create(out, experiment)
        try:
            run = prepared.in_directory(directory, observers)
            run.keep_fingerprint(prepared.fingerprint)
            run.write_partition(prepared.labels)
            return run.complete()
        finally:
            directory.close()


def resume(path: Path, overrides: list[str], observers: Sequence[Observer] = ()) -> History:
    """Continues the run at `path` from its last checkpoint; a finished one is only summed up again."""
    if not is_first():
        with _prepared(read_run_experiment(path, overrides)):
            raise AssertionError("rank 0 alone has a run")
    directory = RunDirectory.reopen(path, overrides)
    try:
        # Before the data are compared: changed settings may be why they differ.
        Checkpoints(path / "checkpoint", directory.experiment).check()
        with _prepared(directory.experiment) as prepared:
            continued = prepared.in_directory(directory, observers)
            continued.keep_fingerprint(prepared.fingerprint)
            continued.resume()
            continued.write_partition(prepared.labels)
            return continued.complete()
    finally:
        directory.close()


@contextmanager
def _prepared(experiment: Experiment) -> Iterator[Prepared]:
    """What the run needs, until it is over. A process that torchrun started as a further rank serves, and ends here."""
    with threads(experiment.run.threads):
        if not launched():
            with closing(prepare(experiment)) as prepared:
                yield prepared
            return
        with together():
            prepared = prepare(experiment)
            assert isinstance(prepared.federation, VirtualFederation)
            if not is_first():
                Shard(prepared.federation).serve()
                raise SystemExit(0)
            with closing(replace(prepared, federation=RankedFederation(prepared.federation))) as ranked:
                yield ranked


@dataclass(frozen=True)
class Prepared:
    """What a run needs before its first round."""

    task: Task
    federation: VirtualFederation | RankedFederation
    evaluator: Evaluator
    labels: LabelSpread
    fingerprint: Fingerprint
    reference: Reference | None
    how: str
    """How clients are trained, and why so, in a line."""
    notes: Sequence[str] = ()
    """What the user may not know of the data."""

    def in_directory(self, directory: RunDirectory, observers: Sequence[Observer]) -> Run:
        for observer in observers:
            if isinstance(observer, Listener):
                for sentence in (self.how, *(f"note: {sentence}" for sentence in self.notes)):
                    observer.note(sentence)
        return Run(directory, self.task, self.federation, self.evaluator, observers, reference=self.reference)

    def close(self) -> None:
        self.federation.close()


def prepare(experiment: Experiment) -> Prepared:
    """All that can fail before a round is played: data, partition, model, device."""
    settings = experiment.run
    setup = set_up(experiment)
    task, dataset, evaluator = setup.task, setup.dataset, setup.evaluator
    parts = partition(dataset, experiment.data, settings.seed)
    owners = owners_of_tests(dataset, parts, settings.seed)

    choice = choose_backend(
        settings.backend, task, dataset.x_train, dataset.y_train, experiment.local.optimizer.decays_weights
    )
    check_products(settings.products, choice.backend, dataset.x_train)
    workers = choose_workers(settings.workers, experiment, dataset.x_train.device)
    lanes = settings.lanes
    if lanes == "auto":
        longest = max(len(part) for part in parts)
        lanes = choose_lanes(task, experiment, dataset.x_train[:1], longest, workers)
    evaluator.threads = workers  # which wait meanwhile
    data = (dataset.x_train, dataset.y_train)
    federation = VirtualFederation(
        task,
        experiment.algorithm,
        experiment.local,
        data,
        parts,
        seed=settings.seed,
        lanes=min(lanes, experiment.cohort_size),
        cohort=experiment.cohort_size,
        workers=workers,
        backend=choice.backend,
        products=settings.products,
        record=choose_recording(settings.cuda_graphs, dataset.x_train.device, choice.backend, task.draws),
        score=lambda x: evaluator.by_owner(x, owners, range(len(parts))),
    )
    reference = (
        CentralRun(task, experiment.local, data, federation.samples, seed=settings.seed, products=settings.products)
        if experiment.metrics.divergence
        else None
    )
    labels = LabelSkew.of(dataset.y_train.cpu().numpy(), parts, dataset.classes).spread(dataset.class_names)
    processes = "1 process" if workers == 1 else f"{workers} processes"
    exactness = "" if settings.products == "full" else f"; products in {settings.products}"
    how = f"training in {processes} of up to {federation.lanes} clients; backend: {choice.backend}, {choice.why}"
    fingerprint = Fingerprint(data=setup.data_sha256, partition=fingerprint_partition(parts))
    return Prepared(task, federation, evaluator, labels, fingerprint, reference, how + exactness, dataset.notes)
