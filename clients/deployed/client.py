"""One client of one federation: its data, its model and its trainer, built once from the server's hello.

A resident client holds only its own samples. A process that plays several clients in turn (an actor of Flower's
simulation) holds the samples of all clients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clients.deployed.bounds import check_before_data, check_before_training
from clients.deployed.durable import DurableState
from clients.deployed.own_data import read_own_data
from clients.lanes.choice import choose_backend
from clients.lanes.sending import SendingTrainer
from clients.lanes.training import Execution, Job, LaneTrainer, LocalTraining
from fedopt.channel.base import Payload
from fedopt.data.dataset import Dataset
from fedopt.data.evaluation_shares import owners_of_tests
from fedopt.data.loading import load_dataset
from fedopt.data.partition import partition
from fedopt.data.settings import DataSettings
from fedopt.data.step_counts import StepCounts
from fedopt.device import choose_device
from fedopt.errors import InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.experiment.file import override
from fedopt.imports import allowing
from fedopt.models.batchnorm import check_batches
from fedopt.models.build import build_model
from fedopt.models.tasks import make_task
from fedopt.optimizers.groups import check_groups
from fedopt.round.federation import Numbers, Score
from fedopt.runs.evaluation import Evaluator
from fedopt.vectors.layout import Layout, largest_magnitude
from fedopt.wire import Hello, Malformed, Order


@dataclass(frozen=True)
class ClientConfig:
    """The settings that belong to the client's machine."""

    client: int
    state: Path
    """The directory for state that must survive the process."""
    data: Path | None = None
    """Its own file or folder of samples; by default its part of the experiment's data."""
    overrides: tuple[str, ...] = ()
    """section.key=value for the settings that the experiment leaves to each machine."""
    code: tuple[str, ...] | None = None
    """Names of code on this machine, package.module:Class or :function, that the server may have it run. None in a
    simulation, whose experiment is the user's own: all code is allowed and no limit applies."""
    alone: bool = False
    """Whether this process plays only this client."""


class FederationClient:
    """Trains and evaluates for one client of one federation."""

    def __init__(self, hello: Hello, config: ClientConfig, read: Callable[[DataSettings, int], FederationData]) -> None:
        """`read` gives the experiment's data, of which a client without data of its own has its part."""
        experiment = experiment_of(hello, config)
        if not 0 <= config.client < experiment.data.clients:
            raise InvalidExperiment(
                f"there is no client {config.client}: the federation's clients are 0 to {experiment.data.clients - 1}"
            )
        if config.code is not None:
            check_before_data(experiment, hello, config.data is not None)
        settings = experiment.run
        torch.set_num_threads(settings.threads)
        device, dtype = choose_device(settings.device), getattr(torch, settings.dtype)
        samples, targets, indices, test = _client_data(experiment, hello, config, read)
        if targets.is_floating_point() != hello.numbers:
            raise InvalidExperiment("this client's targets and the server's are not both classes, or both numbers")
        if tuple(samples.shape[1:]) != hello.sample_shape:
            raise InvalidExperiment(
                f"this client's samples are of shape {tuple(samples.shape[1:])}, the server's {hello.sample_shape}"
            )
        counts = StepCounts.of(experiment.algorithm, experiment.local, settings.seed)

        def check_steps(steps: int) -> None:
            if config.code is not None:
                check_before_training(experiment, len(indices), len(hello.class_names), steps)

        def check_round(round_: int) -> None:
            check_steps(counts.at(len(indices), round_, config.client))

        check_steps(counts.most(len(indices)))
        self._check_round = check_round
        module = build_model(experiment.model, hello.sample_shape, len(hello.class_names), settings.seed)
        check_groups(experiment.local.groups, module)
        experiment.local.check_samples(hello.sample_shape)
        experiment.model.check_samples(samples, len(hello.class_names))
        samples, targets = samples.to(device, dtype), targets.to(device, dtype if hello.numbers else None)
        test = test[0].to(device, dtype), test[1].to(device, dtype if hello.numbers else None)
        module = module.to(device, dtype)
        targets, of_tests = experiment.model.targets_of(samples, targets), experiment.model.targets_of(*test)
        task = make_task(experiment.model, module, samples, targets)
        layout = Layout.with_statistics(task.module)
        self.client, self.samples, self._indices = config.client, len(indices), indices
        self.like = layout.flatten(task.module)
        """A flat vector [Q] with the model's length, dtype and device."""
        self._evaluator = Evaluator(task, layout, test[0], of_tests, len(hello.class_names))
        check_batches(task.module, samples[:1], [len(indices)], counts)
        self._method = method = experiment.method.on(task.module)
        self._algorithm = method.algorithm
        self._down = set(method.names_down(self.like))
        initial = method.client_state(self.like)
        self._state = DurableState(config.state, hello.federation, config.client, initial)
        decays = experiment.local.decays_weights
        backend = choose_backend(settings.backend, task, samples, targets, decays).backend
        policy = experiment.model.batchnorm
        training = LocalTraining(task, method.algorithm, experiment.local, settings.seed, experiment.server, policy)
        trainer = LaneTrainer(training, (samples, targets), Execution(backend, 1, settings.products))
        self._trainer = SendingTrainer(trainer, method.channel, settings.seed)

    @property
    def order_bytes(self) -> int:
        """Bytes of the vectors of an order."""
        return (1 + len(self._down)) * self.like.nbytes

    def train(self, order: Order) -> tuple[Numbers, Payload]:
        """Carries out one order: the numbers and the arrays to send. The client's new state is on disk before this
        returns."""
        broadcast, work = order.broadcast, order.work
        if work.client != self.client:
            raise InvalidExperiment(f"this is client {self.client}, and the order is for client {work.client}")
        if broadcast.survey and not self._algorithm.surveys:
            raise Malformed(f"the order asks for gradients alone, which {self._algorithm.name} never does")
        if broadcast.down.keys() != (set() if broadcast.survey else self._down):
            count = len(broadcast.down)
            raise Malformed(f"the order brings {count} vectors beside the model, not {sorted(self._down)}")
        if not all(math.isfinite(largest_magnitude(vector)) for vector in (broadcast.x, *broadcast.down.values())):
            raise Malformed("the order's vectors are not finite")
        self._check_round(broadcast.round)
        job = Job(work, self._indices, self._state.at(work.accepted))
        result, payload = self._trainer.encode(broadcast, job)
        if broadcast.survey:
            return result.numbers, payload
        self._state.put(broadcast.round, result.state)
        self._state.keep_only({made for made in (broadcast.round, work.accepted, order.saved) if made is not None})
        return result.numbers, payload

    def evaluate(self, x: Tensor, accepted: int | None) -> Score:
        """Evaluates the model on this client's own test share, or the personal model that it makes of it with its state
        of the round `accepted`."""
        if not self._evaluator.samples:
            return Score(self.client, 0, 0.0, None)
        if self._method.is_personal:
            x = self._method.personal(x, self._state.at(accepted))
        found = self._evaluator(x)
        return Score(self.client, self._evaluator.samples, found.loss, found.accuracy)


def experiment_of(hello: Hello, config: ClientConfig) -> Experiment:
    """The server's experiment, with this machine's own settings."""
    sections = override(hello.sections(), config.overrides)
    if config.data is not None:
        sections.setdefault("data", {})["path"] = str(config.data)
    with allowing(config.code):  # before any name from the network is looked up
        return Experiment(**sections)


Samples = tuple[Tensor, Tensor]


def _client_data(
    experiment: Experiment, hello: Hello, config: ClientConfig, read: Callable[[DataSettings, int], FederationData]
) -> tuple[Tensor, Tensor, np.ndarray, Samples]:
    """Samples, targets, the indices of this client's samples, and its own test share."""
    if config.data is not None:
        samples, targets = read_own_data(config.data, hello.class_names, experiment.data.source, hello.numbers)
        return samples, targets, np.arange(len(targets)), (samples[:0], targets[:0])
    data = read(experiment.data, experiment.run.seed)
    dataset, indices = data.dataset, data.parts[config.client]
    tests = np.flatnonzero(data.owners == config.client)
    test = dataset.x_test[tests], dataset.y_test[tests]
    if not config.alone:
        return dataset.x_train, dataset.y_train, indices, test
    # Only this client's samples stay in memory.
    return dataset.x_train[indices], dataset.y_train[indices], np.arange(len(indices)), test


@dataclass(frozen=True)
class FederationData:
    """The data of all clients of an experiment."""

    dataset: Dataset
    parts: list[np.ndarray]
    """Each client's sample indices."""
    owners: np.ndarray
    """The client of each test sample, [n_test]."""


def read_data(settings: DataSettings, seed: int) -> FederationData:
    dataset = load_dataset(settings, seed)
    parts = partition(dataset, settings, seed)
    return FederationData(dataset, parts, owners_of_tests(dataset, parts, seed))
