"""A finished run as an objective: its model, its loss, and samples of its training set."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fedopt.data.partition import partition
from fedopt.errors import DataUnavailable, InvalidExperiment
from fedopt.runs.history import History
from fedopt.runs.load import load
from fedopt.runs.model_file import initial_module
from fedopt.runs.past_runs import read_run
from fedopt.runs.setup import Setup, set_up
from fedopt.vectors.layout import Layout
from simulations.analysis.runs.objective import Objective


@dataclass(frozen=True)
class AnalyzedRun:
    history: History
    setup: Setup

    @classmethod
    def read(cls, directory: Path) -> AnalyzedRun:
        """Reads the run and its data, on the CPU; DataUnavailable if the data are not those of the run."""
        history, fingerprint = load(directory), read_run(directory).fingerprint
        setup = set_up(history.experiment.replace(run={"device": "cpu"}))
        if fingerprint is not None and fingerprint.data != setup.data_sha256:
            raise DataUnavailable(f"{directory} was made on other data than its experiment.toml finds now")
        return cls(history, setup)

    def objective(self, samples: int, seed: int, client: int | None = None, at: nn.Module | None = None) -> Objective:
        """The loss on so many training samples, drawn without replacement, all of them if there are fewer; with
        `client` on this client's samples. Of the final model, with `client` of its own where the run gives clients
        some; or of the module `at`, such as that of a `Point`."""
        self.check_client(client)
        rows = torch.arange(len(self.setup.targets)) if client is None else self.rows_of(client)
        rows = rows[_some(len(rows), samples, seed)]
        return Objective(
            self._module(client) if at is None else at,
            self.setup.problem.task.loss,
            self.setup.dataset.x_train[rows],
            self.setup.targets[rows],
        )

    def on_tests(self, samples: int, seed: int, at: nn.Module | None = None) -> Objective:
        """The loss of the final model, or of `at`, on so many test samples."""
        dataset, model = self.setup.dataset, self.history.experiment.model
        rows = _some(len(dataset.y_test), samples, seed)
        targets = model.targets_of(dataset.x_test[rows], dataset.y_test[rows])
        module = self._module(None) if at is None else at
        return Objective(module, self.setup.problem.task.loss, dataset.x_test[rows], targets)

    def check_client(self, client: int | None) -> None:
        """InvalidExperiment if the run has no such client."""
        clients = self.history.experiment.data.clients
        if client is not None and not 0 <= client < clients:
            raise InvalidExperiment(f"--client {client}: the run has clients 0 to {clients - 1}")

    def rows_of(self, client: int) -> Tensor:
        """The numbers of this client's training samples, rising."""
        return torch.from_numpy(self._parts[client])

    def initial(self) -> Tensor:
        """The parameters that the run began with, [P] in float64."""
        module = initial_module(self.history.directory, self.history.experiment)
        return Layout.of(module).flatten(module).double()

    @cached_property
    def _parts(self) -> list[np.ndarray]:
        return partition(self.setup.dataset, self.history.experiment.data, self.history.experiment.run.seed)

    def _module(self, client: int | None) -> nn.Module:
        method = self.history.experiment.method.on(self.setup.problem.task.module)
        return self.history.model(client if method.is_personal else None)


def _some(count: int, samples: int, seed: int) -> Tensor:
    """Numbers of so many of `count` samples, rising."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:samples].sort().values
