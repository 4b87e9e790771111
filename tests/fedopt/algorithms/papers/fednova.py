"""FedNova after arXiv:2007.07481: Section 4.1 for a_i, and Section 5 for the server.

a_i is written down from the paper's table of solvers: ones for SGD, (1 - r^(K - k)) / (1 - r) for momentum r, and
(1 - lr mu)^(K - 1 - k) for the proximal term.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from fedopt.optimizers.local import LocalSettings
from fedopt.optimizers.sgd import Sgd
from tests.fedopt.algorithms.papers.setting import Problem, walk


def vector(steps: int, momentum: float, alpha: float) -> list[float]:
    """a_i; `alpha` is lr mu, and either of the last two is 0."""
    if momentum:
        return [(1 - momentum ** (steps - k)) / (1 - momentum) for k in range(steps)]
    return [(1 - alpha) ** (steps - 1 - k) for k in range(steps)]


def fednova(problem: Problem, local: LocalSettings, cohort_size: int, rounds: int, mu: float) -> Iterator[Tensor]:
    """x after each round."""
    assert isinstance(local.optimizer, Sgd)
    x, eta, p = problem.start, local.lr, problem.weights()
    for round_, cohort in problem.rounds(cohort_size, rounds):
        shares = p[cohort] / p[cohort].sum()
        tau_eff, direction = 0.0, 0 * x
        for share, i in zip(shares, cohort, strict=True):
            batches = problem.batches(local, round_, i)

            def proximal(y: Tensor, batch: Tensor, i: int = i, x: Tensor = x) -> Tensor:
                return problem.gradient(i, y, batch) + mu * (y - x)

            delta = walk(local, x, batches, proximal) - x
            norm = sum(vector(len(batches), local.optimizer.momentum, eta * mu))
            tau_eff += float(share) * norm
            direction = direction - share * delta / (eta * norm)
        x = x - tau_eff * eta * direction
        yield x
