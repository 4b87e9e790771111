"""Federations of quadratics f_i(x) = x'A_i x / 2 - b_i'x, whose every round has a closed form.

They go through the real engine: a torch module whose samples carry (A_i, b_i), so that the gradient of a
minibatch is A_i x - b_i whatever samples it holds, and n_i samples make a client of weight n_i.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clients.lanes.backends import Backend
from clients.lanes.training import Execution, LocalTraining
from fedopt.algorithms.base import Algorithm
from fedopt.optimizers.local import LocalSettings
from fedopt.optimizers.moments import Moments
from fedopt.round.loop import Rounds, RoundWork, Rules
from fedopt.round.method import Method
from fedopt.round.selection import Terms
from fedopt.round.state import ServerState
from fedopt.task import Task
from simulations.virtual import Resources, VirtualFederation

Array = np.ndarray[Any, np.dtype[np.float64]]


class QuadraticModule(nn.Module):
    def __init__(self, x0: Array) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.from_numpy(x0))

    def forward(self, samples: Tensor) -> Tensor:
        """f at x for each sample [B, d * d + d], [B]."""
        d = self.x.numel()
        matrices, vectors = samples[:, : d * d].reshape(-1, d, d), samples[:, d * d :]
        return 0.5 * torch.einsum("i,bij,j->b", self.x, matrices, self.x) - vectors @ self.x


def own_output(outputs: Tensor, _targets: Tensor, /, *, reduction: str = "mean") -> Tensor:
    """The module puts out its loss itself."""
    return outputs.mean() if reduction == "mean" else outputs


@dataclass(frozen=True)
class Quadratics:
    """N clients: matrices [N, d, d], vectors [N, d], sizes [N], a start [d]."""

    matrices: Array
    vectors: Array
    sizes: tuple[int, ...]
    start: Array

    @classmethod
    def random(cls, clients: int, *, sizes: tuple[int, ...] | None = None, d: int = 3, seed: int = 0) -> Quadratics:
        """Symmetric A_i with eigenvalues from 0.5 to 2, minimisers far apart."""
        rng = np.random.default_rng(seed)
        matrices = []
        for _ in range(clients):
            basis, _ = np.linalg.qr(rng.standard_normal((d, d)))
            matrices.append(basis @ np.diag(rng.uniform(0.5, 2.0, d)) @ basis.T)
        a = np.stack(matrices)
        minimisers = 3 * rng.standard_normal((clients, d))
        return cls(a, np.einsum("nij,nj->ni", a, minimisers), sizes or (2,) * clients, rng.standard_normal(d))

    @property
    def minimisers(self) -> Array:
        solved: Array = np.linalg.solve(self.matrices, self.vectors[..., None])[..., 0].astype(np.float64)
        return solved

    def weights(self, weighting: str) -> Array:
        """p_i."""
        n = np.array(self.sizes, dtype=np.float64) if weighting == "samples" else np.ones(len(self.sizes))
        shares_: Array = n / n.sum()
        return shares_

    def optimum(self, weighting: str) -> Array:
        p = self.weights(weighting)
        solved: Array = np.linalg.solve(np.einsum("n,nij->ij", p, self.matrices), p @ self.vectors)
        return solved

    def contractions(self, lr: float, steps: int) -> Array:
        """M_i = (I - lr A_i)^K, [N, d, d]."""
        powers: Array = np.linalg.matrix_power(np.eye(len(self.start)) - lr * self.matrices, steps)
        return powers

    def federation(
        self, algorithm: Algorithm, local: LocalSettings, *, backend: Backend = "each", lanes: int = 10, seed: int = 0
    ) -> tuple[ServerState, VirtualFederation]:
        """The same clients behind the real engine, and the state the server starts in."""
        rows = np.concatenate([self.matrices.reshape(len(self.sizes), -1), self.vectors], axis=1)
        samples = torch.from_numpy(np.repeat(rows, self.sizes, axis=0))
        ends = np.cumsum(self.sizes)
        parts = [np.arange(end - size, end) for end, size in zip(ends, self.sizes, strict=True)]
        module = QuadraticModule(self.start.copy())
        federation = VirtualFederation(
            LocalTraining(Task(module, own_output), algorithm, local, seed),
            (samples, torch.zeros(len(samples), dtype=torch.int64)),
            parts,
            Execution(backend, lanes),
            Resources(len(parts)),
        )
        return ServerState.initial(
            torch.from_numpy(self.start.copy()), Method(algorithm, moments=Moments.of(local))
        ), federation

    def play(
        self, algorithm: Algorithm, local: LocalSettings, cohort: int, *, backend: Backend = "each", seed: int = 0
    ) -> Iterator[tuple[ServerState, RoundWork, VirtualFederation]]:
        """Rounds without end."""
        initial, federation = self.federation(algorithm, local, backend=backend, seed=seed)
        rounds = Rounds(Method(algorithm, moments=Moments.of(local)), federation, Rules(Terms.all_of(cohort), seed))
        for state, work in rounds.play(initial):
            federation.commit(state.accepted)
            yield state, work, federation


def close(found: Tensor, expected: Array, tolerance: float = 1e-12) -> bool:
    """Largest error, relative to the largest entry (or to 1)."""
    scale = max(1.0, float(np.abs(expected).max()))
    return bool(np.abs(found.numpy() - expected).max() <= tolerance * scale)
