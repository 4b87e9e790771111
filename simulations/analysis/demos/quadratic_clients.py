"""Clients whose losses are quadratics 1/2 (w - t_i)' A_i (w - t_i), trained by the engine of all virtual clients."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from clients.lanes.training import Execution, LocalTraining
from fedopt.algorithms.base import Algorithm
from fedopt.optimizers.local import LocalSettings
from fedopt.optimizers.moments import Moments
from fedopt.round.loop import Rounds, Rules
from fedopt.round.method import Method
from fedopt.round.selection import Terms
from fedopt.round.state import ServerState
from fedopt.task import Task
from simulations.virtual import Resources, VirtualFederation


@dataclass(frozen=True)
class QuadraticClients:
    """N clients of equal weight in d dimensions, float64."""

    matrices: Tensor
    """A_i, symmetric and positive, [N, d, d]."""
    targets: Tensor
    """t_i, [N, d]."""

    @property
    def optimum(self) -> Tensor:
        """Where the mean of the losses is least, [d]."""
        return _balance(self.matrices, self.targets)

    def local_path(self, client: int, start: Tensor, lr: float, steps: int) -> Tensor:
        """Gradient descent of one client, [steps + 1, d]."""
        path = [start]
        for _ in range(steps):
            path.append(path[-1] - lr * self.matrices[client] @ (path[-1] - self.targets[client]))
        return torch.stack(path)

    def fixed_point(self, lr: float, steps: int, mu: float = 0.0) -> Tensor:
        """Where FedAvg stays, or FedProx with this mu: the root of sum_i (I - B_i^K) (A_i + mu I)^-1 A_i (x - t_i),
        where B_i = I - lr (A_i + mu I); [d]."""
        identity = torch.eye(self.targets.shape[1], dtype=self.targets.dtype)
        held = self.matrices + mu * identity
        left = identity - torch.linalg.matrix_power(identity - lr * held, steps)
        return _balance(left @ torch.linalg.solve(held, self.matrices), self.targets)

    def play(self, algorithm: Algorithm, start: Tensor, lr: float, steps: int, rounds: int) -> Tensor:
        """The server's model after each round in which all clients take `steps` full-batch steps, [rounds + 1, d]."""
        local = LocalSettings(lr=lr, epochs=None, steps=steps, batch_size="full")
        samples = torch.cat([self.matrices.flatten(1), self.targets], 1)
        clients = len(samples)
        method = Method(algorithm, moments=Moments.of(local))
        federation = VirtualFederation(
            LocalTraining(Task(_Quadratic(start), _own_output), algorithm, local, 0),
            (samples, torch.zeros(clients, dtype=torch.int64)),
            [torch.tensor([client]).numpy() for client in range(clients)],
            Execution("each", clients),
            Resources(clients),
        )
        found = [start]
        played = Rounds(method, federation, Rules(Terms.all_of(clients), 0)).play(ServerState.initial(start, method))
        for state, _ in itertools.islice(played, rounds):
            federation.commit(state.accepted)
            found.append(state.x.clone())
        return torch.stack(found)


def _balance(pulls: Tensor, targets: Tensor) -> Tensor:
    """The root x of sum_i P_i (x - t_i), [d], for P [N, d, d]."""
    found: Tensor = torch.linalg.solve(pulls.sum(0), (pulls @ targets[..., None]).sum(0)[:, 0])
    return found


class _Quadratic(nn.Module):
    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(start.clone())

    def forward(self, samples: Tensor) -> Tensor:
        """The loss at w for each sample (A, t), [B]."""
        d = self.w.numel()
        matrices, away = samples[:, : d * d].view(-1, d, d), self.w - samples[:, d * d :]
        return 0.5 * torch.einsum("bi,bij,bj->b", away, matrices, away)


def _own_output(outputs: Tensor, _targets: Tensor, /, *, reduction: str = "mean") -> Tensor:
    return outputs.mean() if reduction == "mean" else outputs
