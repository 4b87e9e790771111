"""Ditto after arXiv:2012.04221, Algorithm 1, with FedAvg for the global objective."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor, nn

from fedopt.optimizers.local import LocalSettings
from tests.fedopt.algorithms.papers.setting import Problem, torch_optimizer


def ditto(
    problem: Problem,
    local: LocalSettings,
    cohort_size: int,
    rounds: int,
    lam: float,
    rate: Callable[[int, int], float] | None = None,
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """(w, all v_k) after each round; `rate` gives that of a round's step, local.lr by default."""
    w, n = problem.start, problem.weights()
    v = [problem.start for _ in problem.sizes]
    for round_, cohort in problem.rounds(cohort_size, rounds):
        change = 0 * w
        for k in cohort:
            w_k = nn.Parameter(w.clone())
            optimizer = torch_optimizer(local, w_k)
            for step, batch in enumerate(problem.batches(local, round_, k)):
                eta = local.lr if rate is None else rate(round_, step)
                optimizer.param_groups[0]["lr"] = eta
                w_k.grad = problem.gradient(k, w_k, batch)
                optimizer.step()
                v[k] = v[k] - eta * (problem.gradient(k, v[k], batch) + lam * (v[k] - w))
            change = change + n[k] / n[cohort].sum() * (w_k.detach() - w)
        w = w + change
        yield w, list(v)
