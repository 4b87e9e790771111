"""FedDyn after arXiv:2111.04263, Algorithm 1, with objectives weighted by p_k in place of 1 / m."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fedopt.optimizers.local import LocalSettings
from tests.fedopt.algorithms.papers.setting import Problem, walk


def feddyn(
    problem: Problem, local: LocalSettings, cohort_size: int, rounds: int, alpha: float, weighting: str
) -> Iterator[tuple[Tensor, Tensor, list[Tensor]]]:
    """theta, h and all gradients grad L_k(theta_k) after each round; the risk R_k of a device goes through autograd."""
    theta, p = problem.start, problem.weights(weighting)
    h = torch.zeros_like(theta)
    grad_l = [torch.zeros_like(theta) for _ in problem.sizes]
    for round_, cohort in problem.rounds(cohort_size, rounds):
        theta_k = {}
        for k in cohort:

            def gradient(y: Tensor, batch: Tensor, k: int = k, theta: Tensor = theta) -> Tensor:
                point = y.clone().requires_grad_()
                linear, quadratic = grad_l[k] @ point, (point - theta).square().sum()
                risk = problem.loss(k, point, batch) - linear + alpha / 2 * quadratic
                return torch.autograd.grad(risk, point)[0]

            theta_k[k] = walk(local, theta, problem.batches(local, round_, k), gradient)
        for k in cohort:
            grad_l[k] = grad_l[k] - alpha * (theta_k[k] - theta)
            h = h - alpha * p[k] * (theta_k[k] - theta)
        mean = torch.stack([p[k] * theta_k[k] for k in cohort]).sum(0) / p[cohort].sum()
        theta = mean - h / alpha
        yield theta, h, list(grad_l)
