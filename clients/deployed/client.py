"""What a client's process has at hand for one federation: its data, its model, and the trainer that joins them.

Made once from the server's hello and kept for every order that follows. A resident client holds its own samples
alone; a process that plays several clients in turn (an actor of Flower's simulation) holds those of all.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clients.deployed.bounds import check_before_data, check_before_training
from clients.deployed.durable import DurableState
from clients.deployed.own_data import read_own_data
from clients.lanes.choice import choose_backend
from clients.lanes.training import Job, LaneTrainer
from fedopt.data.dataset import Dataset, load_dataset
from fedopt.data.evaluation_shares import owners_of_tests
from fedopt.data.partition import partition
from fedopt.data.settings import DataSettings
from fedopt.device import choose_device
from fedopt.errors import InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.experiment.file import override
from fedopt.models.behavior import draws_in_training
from fedopt.models.build import build_model
from fedopt.models.custom import CustomModel
from fedopt.round.federation import Score, Update
from fedopt.runs.evaluation import Evaluator
from fedopt.task import Task
from fedopt.vectors.layout import Layout, largest_magnitude
from fedopt.wire import Hello, Malformed, Order


@dataclass(frozen=True)
class Own:
    """What a machine decides for itself."""

    client: int
    state: Path
    """Where it keeps what must survive its process."""
    data: Path | None = None
    """Its own file or folder of samples; without one, its part of the experiment's data."""
    overrides: tuple[str, ...] = ()
    """section.key=value for what the experiment leaves to each machine."""
    models: tuple[str, ...] | None = None
    """Factories, package.module:function, that a server may have this machine call. None in a simulation, whose user
    wrote the experiment: any may be called then, and nothing is out of bounds."""
    alone: bool = False
    """Whether this process plays no other client."""


class Workplace:
    """One client of one federation."""

    def __init__(self, hello: Hello, own: Own) -> None:
        experiment = experiment_of(hello, own)
        if not 0 <= own.client < experiment.data.clients:
            raise InvalidExperiment(
                f"there is no client {own.client}: the federation's clients are 0 to {experiment.data.clients - 1}"
            )
        if own.models is not None:
            check_before_data(experiment, hello, own.data is not None)
        settings = experiment.run
        torch.set_num_threads(settings.threads)
        device, dtype = choose_device(settings.device), getattr(torch, settings.dtype)
        samples, targets, indices, test = _holdings(experiment, hello, own)
        if tuple(samples.shape[1:]) != hello.sample_shape:
            raise InvalidExperiment(
                f"this client's samples are of shape {tuple(samples.shape[1:])}, the server's {hello.sample_shape}"
            )
        if own.models is not None:
            check_before_training(experiment, len(indices), len(hello.class_names))
        module = build_model(experiment.model, hello.sample_shape, len(hello.class_names), settings.seed)
        samples, targets = samples.to(device, dtype), targets.to(device)
        module = module.to(device, dtype)
        task = Task(module, draws=draws_in_training(module, samples, experiment.model.name))
        layout = Layout.of(task.module)
        self.client, self.samples, self._indices = own.client, len(indices), indices
        self.like = layout.flatten(task.module)
        """A vector of the model's length and type, where the model is."""
        self._evaluator = Evaluator(task, layout, test[0].to(device, dtype), test[1].to(device), len(hello.class_names))
        algorithm = experiment.algorithm
        self._down = algorithm.sends_down(algorithm.server_keeps(self.like)).keys()
        self._state = DurableState(
            own.state, hello.federation, own.client, experiment.algorithm.client_keeps(self.like)
        )
        self._trainer = LaneTrainer(
            task,
            layout,
            experiment.algorithm,
            experiment.local,
            (samples, targets),
            seed=settings.seed,
            backend=choose_backend(
                settings.backend, task, samples, targets, experiment.local.optimizer.decays_weights
            ).backend,
            lanes=1,
            products=settings.products,
        )

    @property
    def order_bytes(self) -> int:
        """Of the vectors of an order."""
        return (1 + len(self._down)) * self.like.nbytes

    def carry_out(self, order: Order) -> Update:
        """The work of one order. What the client keeps of it is on the disk before this returns."""
        work = order.work
        if work.client != self.client:
            raise InvalidExperiment(f"this is client {self.client}, and the order is for client {work.client}")
        if work.down.keys() != self._down:
            raise Malformed(f"the order brings {len(work.down)} vectors beside the model, not {sorted(self._down)}")
        if not all(math.isfinite(largest_magnitude(vector)) for vector in (work.x, *work.down.values())):
            raise Malformed("the order's vectors are not finite")
        kept = self._state.at(work.accepted)
        result = self._trainer.train([Job(work, self._indices, kept)])[0]
        self._state.put(work.round, result.keep)
        self._state.keep_only({made for made in (work.round, work.accepted, order.saved) if made is not None})
        return Update(
            round=work.round,
            client=work.client,
            samples=result.samples,
            steps=result.steps,
            loss=result.loss,
            up=result.up,
            bytes_down=0,  # the server measures them
            bytes_up=0,
            told=result.told,
        )

    def evaluate(self, x: Tensor) -> Score:
        """The model on this client's own test share."""
        if not self._evaluator.samples:
            return Score(self.client, 0, 0.0, 0.0)
        found = self._evaluator(x)
        return Score(self.client, self._evaluator.samples, found.loss, found.accuracy)


def experiment_of(hello: Hello, own: Own) -> Experiment:
    """The server's experiment, completed by what is this machine's own."""
    sections = override(hello.sections(), own.overrides)
    if own.data is not None:
        sections.setdefault("data", {})["path"] = str(own.data)
    experiment = Experiment(**sections)
    name = experiment.model.name
    if isinstance(experiment.model, CustomModel) and own.models is not None and name not in own.models:
        raise InvalidExperiment(
            f"the server wants this machine to run {name}; if you trust it, start the client with --allow-model {name} "
            f"(a stock SuperNode with allow-model='{name}' in its --node-config)"
        )
    return experiment


Samples = tuple[Tensor, Tensor]


def _holdings(experiment: Experiment, hello: Hello, own: Own) -> tuple[Tensor, Tensor, np.ndarray, Samples]:
    """Samples, targets, the positions among them that are this client's, and its own test share."""
    if own.data is not None:
        samples, targets = read_own_data(own.data, hello.class_names, experiment.data.image_size)
        return samples, targets, np.arange(len(targets)), (samples[:0], targets[:0])
    read = read_data.__wrapped__ if own.alone else read_data
    dataset, parts, owners = read(experiment.data, experiment.run.seed)
    indices, tests = parts[own.client], np.flatnonzero(owners == own.client)
    test = dataset.x_test[tests], dataset.y_test[tests]
    if not own.alone:
        return dataset.x_train, dataset.y_train, indices, test
    # The rest is let go.
    return dataset.x_train[indices], dataset.y_train[indices], np.arange(len(indices)), test


@functools.lru_cache(maxsize=1)
def read_data(settings: DataSettings, seed: int) -> tuple[Dataset, list[np.ndarray], np.ndarray]:
    """The experiment's data, each client's part of them, and the client of each test sample; the last are kept."""
    dataset = load_dataset(settings, seed)
    parts = partition(dataset, settings, seed)
    return dataset, parts, owners_of_tests(dataset, parts, seed)
