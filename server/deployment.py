"""A deployed run: the round loop of a simulation, with clients behind a Flower Grid."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedopt.algorithms.base import pooled_refusal
from fedopt.data.fingerprint import Fingerprint
from fedopt.data.label_skew import LabelSpread
from fedopt.device import threads
from fedopt.errors import InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.models.weights import untrained
from fedopt.round.selection import Terms
from fedopt.runs.checkpoint import Checkpoints
from fedopt.runs.directory import RunDirectory, check_unused
from fedopt.runs.history import History
from fedopt.runs.runner import Run
from fedopt.runs.setup import Setup, set_up
from fedopt.wire import Hello
from server.grid_federation import GridFederation, read_known
from server.links import Link
from server.options import DeploymentOptions
from server.roster import Roster


def terms_of(experiment: Experiment) -> Terms:
    """How many clients a round asks and needs. Half of the cohort is enough unless run.min_replies says otherwise."""
    cohort = experiment.cohort_size
    return Terms(experiment.asked_size, cohort, experiment.run.min_replies or math.ceil(cohort / 2))


@contextmanager
def open_run(
    experiment: Experiment | None, out: Path | None, resume: Path | None, overrides: list[str]
) -> Iterator[tuple[RunDirectory, Setup]]:
    """The run's directory, new or reopened, and its set-up. Nothing is written if the set-up fails."""
    if resume is not None:
        directory = RunDirectory.reopen(resume, overrides)
        try:
            _refuse_pooled_data(directory.experiment)
            # Before the data are compared: if settings differ, they may be why the data differ.
            Checkpoints(resume / "checkpoint", directory.experiment).check()
            with threads(directory.experiment.run.threads):
                setup = set_up(directory.experiment)
                directory.keep_fingerprint(Fingerprint(data=setup.data_sha256))
                directory.keep_scaling(setup.dataset.scaling)
                yield directory, setup
        finally:
            directory.close()
        return
    assert experiment is not None
    _refuse_pooled_data(experiment)
    if out is not None:
        check_unused(out)
    with threads(experiment.run.threads):
        setup = set_up(experiment)
        directory = RunDirectory.create(out, experiment)
        try:
            directory.keep_fingerprint(Fingerprint(data=setup.data_sha256))
            directory.keep_scaling(setup.dataset.scaling)
            yield directory, setup
        finally:
            directory.close()


def _refuse_pooled_data(experiment: Experiment) -> None:
    if experiment.algorithm.pools_data:
        raise InvalidExperiment(f"algorithm.name: {pooled_refusal(experiment.algorithm)}")


def _refuse_weights_that_do_not_travel(experiment: Experiment, setup: Setup) -> None:
    """Clients build the model without the file and get what is trained from the server, and nothing else."""
    if experiment.model.weights is not None and experiment.model.batchnorm == "local":
        raise InvalidExperiment(
            "model.weights: each client starts with the BatchNorm that it builds, which is not that of the file; build "
            'the model with it on every machine, by a function of your own as model.name, or choose "average"'
        )
    name = untrained(setup.problem.task.module)
    if experiment.model.weights is not None and name is not None:
        raise InvalidExperiment(
            f"model.weights: {name} is not trained, so that clients would never get it from the file; build the model "
            "with it on every machine, by a function of your own as model.name, or train it"
        )


def run_deployed(directory: RunDirectory, setup: Setup, link: Link, options: DeploymentOptions) -> History:
    """Waits for the clients, runs the remaining rounds, and dismisses the clients."""
    experiment = directory.experiment
    _refuse_weights_that_do_not_travel(experiment, setup)
    clients, terms = experiment.data.clients, terms_of(experiment)
    federation_name, samples = secrets.token_hex(8), dict[int, int]()
    resumes = Checkpoints(directory.path / "checkpoint", experiment).exists
    if resumes:
        federation_name, samples = read_known(directory.path / "checkpoint" / "clients")

    dataset = setup.dataset
    names = dataset.class_names or tuple(str(label) for label in range(dataset.classes))
    hello = Hello.of(federation_name, experiment, dataset.sample_shape, names, dataset.has_numbers)
    roster = Roster(link, hello, clients, options.owners, options.report, experiment.admission)
    roster.samples |= samples
    federation = GridFederation(link, roster, experiment, options, least=terms.least, federation=federation_name)
    for sentence in setup.notes:
        options.report(f"note: {sentence}")
    if experiment.metrics.divergence:
        options.report("note: metrics.divergence is left out: it needs a centralized run, which only fedopt run has")
    run = Run(directory, setup.problem, federation, options.observers, terms, options.command)
    run.resume()
    with run.resumable():
        federation.wait_for_clients()
    run.write_partition(LabelSpread(classes=list(names), sizes=list(federation.samples)))
    history = run.complete()
    federation.dismiss(f"the run is complete: {history.summary.rounds} rounds")
    return history
