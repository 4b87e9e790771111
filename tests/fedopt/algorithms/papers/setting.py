"""Small federations that run through the real engine, and the plain data that a reference from a paper needs.

    problem = PROBLEMS["network-unequal"]
    played = problem.play(FedAvg(), local, cohort=3, rounds=4)              # [(state, work, federation)], the engine
    for round_, cohort in problem.rounds(3, 4):                             # the reference: round 1, 2, ...
        for i in cohort:
            for batch in problem.batches(local, round_, i):                 # positions in the client's samples
                y = y - lr * problem.gradient(i, y, batch)

A model is a float64 vector [P]. Gradients are closed forms (quadratics) or plain autograd (a network with two layers);
clients hold 2 to 9 samples, so that epochs are ragged: they differ in steps, and in the size of the last batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from clients.lanes.backends import Backend
from clients.lanes.training import Execution, LocalTraining
from fedopt.algorithms.base import Algorithm
from fedopt.data.batches import plan_batches
from fedopt.optimizers.local import LocalSettings
from fedopt.optimizers.moments import Moments
from fedopt.round.loop import Rounds, RoundWork, Rules
from fedopt.round.method import Method
from fedopt.round.selection import Terms, select_cohort
from fedopt.round.state import ServerState
from fedopt.seeding import Purpose, stream
from fedopt.task import Task
from simulations.virtual import Resources, VirtualFederation
from tests.quadratics import QuadraticModule, Quadratics, own_output

SEED = 0
EQUAL, UNEQUAL = (4,) * 5, (2, 9, 5, 3, 7)

Played = tuple[ServerState, RoundWork, VirtualFederation]


class Problem(ABC):
    """N clients with losses f_i, and the model that all start from."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = tuple(sizes)
        """n_i."""

    @property
    @abstractmethod
    def start(self) -> Tensor:
        """x before the first round, [P]."""

    @abstractmethod
    def loss(self, client: int, y: Tensor, batch: Tensor | None = None) -> Tensor:
        """Mean loss at y [P] over these of the client's samples, or over all of them."""

    def gradient(self, client: int, y: Tensor, batch: Tensor | None = None) -> Tensor:
        """Gradient of `loss` at y, [P]."""
        point = y.detach().clone().requires_grad_()
        return torch.autograd.grad(self.loss(client, point, batch), point)[0]

    def weights(self, weighting: str = "samples") -> Tensor:
        """p_i of all N clients, [N]."""
        n = torch.tensor(self.sizes if weighting == "samples" else [1] * len(self.sizes), dtype=torch.float64)
        return n / n.sum()

    def rounds(self, cohort: int, rounds: int) -> Iterator[tuple[int, list[int]]]:
        """The number of each round, from 1, and its clients."""
        for round_ in range(1, rounds + 1):
            yield round_, select_cohort(len(self.sizes), cohort, SEED, round_)

    def batches(self, local: LocalSettings, round_: int, client: int) -> list[Tensor]:
        """The client's minibatches of the round, one for each step: positions in its samples, as `gradient` takes."""
        plan = plan_batches(self.sizes[client], local, stream(SEED, Purpose.BATCHES, round_, client))
        return [torch.from_numpy(row[:n].copy()) for row, n in zip(plan.positions, plan.counts, strict=True)]

    @abstractmethod
    def _engine(self) -> tuple[Task, tuple[Tensor, Tensor]]:
        """Module and loss, and the samples and targets of all clients, one client after the other."""

    def play(
        self,
        algorithm: Algorithm,
        local: LocalSettings,
        cohort: int,
        rounds: int,
        *,
        backend: Backend = "each",
        lanes: int = 10,
    ) -> list[Played]:
        """Rounds through the real engine: the state after each, its outcome, and the federation."""
        task, data = self._engine()
        ends = np.cumsum(self.sizes)
        parts = [np.arange(end - size, end) for end, size in zip(ends, self.sizes, strict=True)]
        training = LocalTraining(task, algorithm, local, SEED)
        federation = VirtualFederation(training, data, parts, Execution(backend, lanes), Resources(len(parts)))
        method = Method(algorithm, moments=Moments.of(local))
        initial = ServerState.initial(self.start.clone(), method)
        played: list[Played] = []
        for state, work in islice(Rounds(method, federation, Rules(Terms.all_of(cohort), SEED)).play(initial), rounds):
            federation.commit(state.accepted)
            played.append((state, work, federation))
        return played


class QuadraticProblem(Problem):
    """f_i(x) = x'A_i x / 2 - b_i'x, whatever the batch."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__(sizes)
        self.quadratics = Quadratics.random(len(sizes), sizes=self.sizes, d=4, seed=1)

    @property
    def start(self) -> Tensor:
        return torch.from_numpy(self.quadratics.start)

    def loss(self, client: int, y: Tensor, batch: Tensor | None = None) -> Tensor:
        return 0.5 * y @ self._matrix(client) @ y - torch.from_numpy(self.quadratics.vectors[client]) @ y

    def gradient(self, client: int, y: Tensor, batch: Tensor | None = None) -> Tensor:
        return self._matrix(client) @ y - torch.from_numpy(self.quadratics.vectors[client])

    def _matrix(self, client: int) -> Tensor:
        return torch.from_numpy(self.quadratics.matrices[client])

    def _engine(self) -> tuple[Task, tuple[Tensor, Tensor]]:
        q = self.quadratics
        rows = np.concatenate([q.matrices.reshape(len(q.sizes), -1), q.vectors], axis=1)
        samples = torch.from_numpy(np.repeat(rows, q.sizes, axis=0))
        targets = torch.zeros(len(samples), dtype=torch.int64)
        return Task(QuadraticModule(q.start.copy()), own_output), (samples, targets)


class NetworkProblem(Problem):
    """Classification into three classes by a network with one hidden layer; clients see different classes."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__(sizes)
        chance = torch.Generator().manual_seed(2)
        self._module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
        with torch.no_grad():
            for parameter in self._module.parameters():
                parameter.copy_(0.7 * torch.randn(parameter.shape, generator=chance, dtype=torch.float64))
        centers = 2 * torch.randn(3, 3, generator=chance, dtype=torch.float64)
        classes = [torch.randint(0, 3, (n,), generator=chance) * (i % 2) + i % 3 for i, n in enumerate(sizes)]
        self._targets = torch.cat(classes) % 3
        noise = torch.randn(len(self._targets), 3, generator=chance, dtype=torch.float64)
        self._samples = centers[self._targets] + noise

    @property
    def start(self) -> Tensor:
        return nn.utils.parameters_to_vector(self._module.parameters()).detach()

    @cached_property
    def _shapes(self) -> Mapping[str, torch.Size]:
        return {name: parameter.shape for name, parameter in self._module.named_parameters()}

    def loss(self, client: int, y: Tensor, batch: Tensor | None = None) -> Tensor:
        rows = torch.arange(self.sizes[client]) if batch is None else batch
        rows = rows + sum(self.sizes[:client])
        parts = torch.split(y, [shape.numel() for shape in self._shapes.values()])
        named = {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts, strict=True)}
        return functional.cross_entropy(functional_call(self._module, named, self._samples[rows]), self._targets[rows])

    def _engine(self) -> tuple[Task, tuple[Tensor, Tensor]]:
        return Task(self._module), (self._samples, self._targets)


PROBLEMS: Mapping[str, Problem] = {
    "quadratic-equal": QuadraticProblem(EQUAL),
    "quadratic-unequal": QuadraticProblem(UNEQUAL),
    "network-equal": NetworkProblem(EQUAL),
    "network-unequal": NetworkProblem(UNEQUAL),
}

LOCALS: Mapping[str, Mapping[str, Any]] = {
    "equal-steps": {"lr": 0.05, "steps": 4, "batch_size": "full"},
    "unequal-steps": {"lr": 0.05, "epochs": 2, "batch_size": 3},
    "momentum": {"lr": 0.03, "epochs": 2, "batch_size": 3, "momentum": 0.8},
    "nesterov": {"lr": 0.03, "epochs": 2, "batch_size": 3, "momentum": 0.8, "nesterov": True},
    "adam": {"optimizer": "adam", "lr": 0.02, "epochs": 2, "batch_size": 3},
    "adamw": {"optimizer": "adamw", "lr": 0.02, "epochs": 2, "batch_size": 3, "weight_decay": 0.1},
}
"""Keys of [local]; `walk` knows all of these optimizers from torch."""


def walk(
    local: LocalSettings, y: Tensor, batches: Iterable[Tensor], gradient: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Where the local steps of torch's own optimizer lead from y, [P]; `gradient` of a point and a batch is what the
    optimizer sees."""
    point = nn.Parameter(y.detach().clone())
    optimizer = torch_optimizer(local, point)
    for batch in batches:
        point.grad = gradient(point.detach(), batch)
        optimizer.step()
    return point.detach()


def torch_optimizer(local: LocalSettings, point: nn.Parameter) -> torch.optim.Optimizer:
    """torch's own optimizer with the settings of one of `LOCALS`, without state."""
    keys = local.optimizer.model_dump(exclude={"nesterov_form", "bias_correction"})  # torch has one form of each
    kinds: dict[str, Callable[..., torch.optim.Optimizer]]
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return kinds[keys.pop("name")]([point], lr=local.lr, **keys)


def errors(played: Iterable[Played], expected: Iterable[Tensor]) -> list[float]:
    """Of each round: the largest error of x, relative to the largest entry."""
    pairs = zip(played, expected, strict=True)
    return [float((state.x - x).abs().max() / x.abs().max()) for (state, _, _), x in pairs]
