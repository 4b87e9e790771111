"""An independent implementation: FedAvg and SCAFFOLD as plain loops over one torch module and torch.optim.

FedAvg: McMahan et al. 2017 (arXiv:1602.05629), Algorithm 1. SCAFFOLD: Karimireddy et al. 2020 (arXiv:1910.06378),
Algorithm 1, with the control of this project: the mean of the raw stochastic gradients of the steps really taken, or
(full-gradient) the paper's option I. SAM: Foret et al. 2021 (arXiv:2010.01412), Algorithm 1 and equation (2).

With fedopt it shares data, partition, initial weights, cohorts and minibatches, and nothing else. There is one module,
whose weights are set in place: hooks and closures that belong to it see the weights that are trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedopt.data.batches import plan_batches
from fedopt.data.loading import load_dataset
from fedopt.data.partition import partition
from fedopt.experiment.experiment import Experiment
from fedopt.models.build import build_model
from fedopt.round.selection import select_cohort
from fedopt.seeding import Purpose, stream


@dataclass(frozen=True)
class Problem:
    """What the reference and fedopt share."""

    module: nn.Module
    """With its initial weights."""
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    parts: Sequence[np.ndarray]
    """The training samples of each client."""
    cohort: Callable[[int], Sequence[int]]
    """The clients of a round, which count from 1."""
    minibatches: Callable[[int, int], Sequence[np.ndarray]]
    """For a round and a client, the training samples of each of its steps."""


def shared(experiment: Experiment, dtype: torch.dtype, order: int | None = None) -> Problem:
    """The problem in that type, from the numbers that fedopt has in the experiment's own.

    `order` seeds another order of the samples within each minibatch, which changes the rounding of sums alone.
    """
    run, local = experiment.run, experiment.local
    own = getattr(torch, run.dtype)
    data = load_dataset(experiment.data, run.seed)
    module = build_model(experiment.model, data.sample_shape, data.classes, run.seed).to(own).to(dtype)
    parts = partition(data, experiment.data, run.seed)

    def minibatches(round_: int, client: int) -> list[np.ndarray]:
        plan = plan_batches(len(parts[client]), local, stream(run.seed, Purpose.BATCHES, round_, client))
        rows = [parts[client][at[:count]] for at, count in zip(plan.positions, plan.counts.tolist(), strict=True)]
        if order is None:
            return rows
        shuffle = np.random.default_rng((order, round_, client))
        return [shuffle.permutation(own_rows) for own_rows in rows]

    return Problem(
        module,
        (data.x_train.to(own).to(dtype), data.y_train),
        (data.x_test.to(own).to(dtype), data.y_test),
        parts,
        lambda round_: select_cohort(len(parts), experiment.cohort_size, run.seed, round_),
        minibatches,
    )


@dataclass(frozen=True)
class Round:
    """What one round amounted to."""

    train_loss: float
    test_loss: float
    test_accuracy: float
    measures: dict[str, tuple[float, float]]
    """By the names of the records: update_norm, drift.norm, gradients.zeta2, algorithm.distance and so on. Beside each
    value stands how large what it is made of is: a mean of vectors that cancel is only as exact as they are."""


@dataclass
class Outcome:
    """What a run came to; vectors are those of the trainable parameters, one after the other."""

    start: Tensor
    x: Tensor
    c: Tensor | None
    control_scale: float
    """sqrt(sum p_i |c_i|^2), how long the clients' controls are; c itself may be much shorter."""
    logits: Tensor
    """Of the test set, by the final model."""
    rounds: list[Round] = field(default_factory=list)


@dataclass(frozen=True)
class _Work:
    """What one client did in one round."""

    dx: Tensor
    loss: float
    raw: Tensor
    """Mean of the raw gradients of its steps."""


class Reference:
    """One experiment, run plainly."""

    def __init__(self, problem: Problem, experiment: Experiment) -> None:
        self._problem, self._experiment = problem, experiment
        self._module = problem.module
        self._parameters = [p for p in self._module.parameters() if p.requires_grad]
        algorithm = experiment.algorithm
        self._scaffold = algorithm.name == "scaffold"
        self._option_one = getattr(algorithm, "variant", "") == "full-gradient"
        sizes = [len(part) for part in problem.parts]
        uniform = algorithm.weighting == "uniform"
        self._p = [1 / len(sizes) if uniform else size / sum(sizes) for size in sizes]

    def run(self) -> Outcome:
        x = self._flat([p.detach() for p in self._parameters])
        outcome = Outcome(x, x, None, 0.0, x)
        c, c_i = torch.zeros_like(x), [torch.zeros_like(x) for _ in self._p]
        for number in range(1, self._experiment.run.rounds + 1):
            cohort = self._problem.cohort(number)
            gradients = {i: self._full_gradient(x, i) for i in cohort}
            correction = {i: c - c_i[i] for i in cohort}
            work = {i: self._train(x, correction[i] if self._scaffold else None, number, i) for i in cohort}
            share = sum(self._p[i] for i in cohort)
            mean = sum(((self._p[i] / share) * work[i].dx for i in cohort), torch.zeros_like(x))
            measures = _measures([(self._p[i] / share, work[i].dx, gradients[i]) for i in cohort])
            if self._scaffold:
                measures |= _control_measures(
                    [(self._p[i] / share, c_i[i], correction[i], gradients[i]) for i in cohort]
                )
                new = {i: gradients[i] if self._option_one else work[i].raw for i in cohort}
                c = c + sum((self._p[i] * (new[i] - c_i[i]) for i in cohort), torch.zeros_like(x))
                for i in cohort:
                    c_i[i] = new[i]
            before, x = x, x + self._experiment.algorithm.server_lr * mean
            train_loss = sum(self._p[i] / share * work[i].loss for i in cohort)
            outcome.logits = self._test_logits(x)
            y = self._problem.test[1]
            outcome.rounds.append(
                Round(
                    train_loss,
                    F.cross_entropy(outcome.logits, y).item(),
                    (outcome.logits.argmax(1) == y).double().mean().item(),
                    {**measures, "update_norm": ((x - before).norm().item(), measures["drift.mean_norm"][0])},
                )
            )
        outcome.x, outcome.c = x, c if self._scaffold else None
        outcome.control_scale = math.sqrt(sum(p * v.square().sum().item() for p, v in zip(self._p, c_i, strict=True)))
        return outcome

    def _train(self, x: Tensor, correction: Tensor | None, round_: int, client: int) -> _Work:
        """Local steps from x; the correction goes into the gradient before the optimizer sees it."""
        local = self._experiment.local.model_dump()
        self._load(x)
        self._module.train()
        optimizer = self._optimizer()
        losses, raw = [], torch.zeros_like(x)
        minibatches = self._problem.minibatches(round_, client)
        for rows in minibatches:
            loss, gradient = self._evaluate_gradient(rows, correction)
            if local["optimizer"] == "sam":
                here = [p.detach().clone() for p in self._parameters]
                self._climb(local["rho"], local["p"])
                _, gradient = self._evaluate_gradient(rows, correction)
                with torch.no_grad():
                    for p, old in zip(self._parameters, here, strict=True):
                        p.copy_(old)
            optimizer.step()
            losses.append(loss)
            raw += gradient
        y = self._flat([p.detach() for p in self._parameters])
        return _Work(y - x, sum(losses) / len(losses), raw / len(minibatches))

    def _optimizer(self) -> torch.optim.Optimizer:
        local = self._experiment.local.model_dump()
        name = local["base"] if local["optimizer"] == "sam" else local["optimizer"]
        keys = ("momentum", "nesterov", "weight_decay") if name == "sgd" else ("betas", "eps", "weight_decay")
        own: dict[str, Any] = {"lr": local["lr"], **{key: local[key] for key in keys}}
        if name == "sgd":
            return torch.optim.SGD(self._parameters, **own)
        return (torch.optim.Adam if name == "adam" else torch.optim.AdamW)(self._parameters, **own)

    def _evaluate_gradient(self, rows: np.ndarray, correction: Tensor | None) -> tuple[float, Tensor]:
        """Loss and raw gradient; `grad` of the parameters is the corrected and clipped one."""
        x, y = self._problem.train
        at = torch.from_numpy(rows)
        for p in self._parameters:
            p.grad = None
        loss = F.cross_entropy(self._module(x[at]), y[at])
        loss.backward()  # type: ignore[no-untyped-call]
        raw = self._flat([torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters])
        if correction is not None:
            for p, shift in zip(self._parameters, torch.split(correction, self._sizes), strict=True):
                if p.grad is not None:
                    p.grad = p.grad + shift.view_as(p)
        clip = self._experiment.local.clip
        if clip is not None:
            nn.utils.clip_grad_norm_(self._parameters, clip)
        return loss.item(), raw

    @torch.no_grad()
    def _climb(self, rho: float, p: float) -> None:
        """theta <- theta + rho sign(g) |g|^(q-1) / (||g||_q^q)^(1/p), 1/p + 1/q = 1."""
        g = self._flat([torch.zeros_like(w) if w.grad is None else w.grad for w in self._parameters])
        if not g.any():
            return
        if p == 1:
            step = torch.zeros_like(g)
            largest = g.abs().argmax()
            step[largest] = rho * g[largest].sign()
        elif math.isinf(p):
            step = rho * g.sign()
        else:
            q = p / (p - 1)
            g = g / g.abs().max()  # the step does not depend on the gradient's length
            step = rho * g.sign() * g.abs() ** (q - 1) / (g.abs() ** q).sum() ** (1 / p)
        for w, part in zip(self._parameters, torch.split(step, self._sizes), strict=True):
            w.add_(part.view_as(w))

    def _full_gradient(self, x: Tensor, client: int) -> Tensor:
        """grad f_i(x), over all data of the client."""
        self._load(x)
        self._module.train()
        inputs, targets = self._problem.train
        at = torch.from_numpy(self._problem.parts[client])
        for p in self._parameters:
            p.grad = None
        F.cross_entropy(self._module(inputs[at]), targets[at]).backward()  # type: ignore[no-untyped-call]
        return self._flat([torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters])

    @torch.no_grad()
    def _test_logits(self, x: Tensor) -> Tensor:
        self._load(x)
        self._module.eval()
        logits: Tensor = self._module(self._problem.test[0])
        return logits

    @torch.no_grad()
    def _load(self, x: Tensor) -> None:
        for p, part in zip(self._parameters, torch.split(x, self._sizes), strict=True):
            p.copy_(part.view_as(p))

    @property
    def _sizes(self) -> list[int]:
        return [p.numel() for p in self._parameters]

    @staticmethod
    def _flat(tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def _measures(clients: Sequence[tuple[float, Tensor, Tensor]]) -> dict[str, tuple[float, float]]:
    """Drift and dissimilarity from (w_i, d_i, grad f_i(x)) of the round's clients, as their definitions say."""
    d = sum((w * own for w, own, _ in clients), torch.zeros_like(clients[0][1]))
    g = sum((w * own for w, _, own in clients), torch.zeros_like(d))
    mean_norm = sum(w * own.norm().item() for w, own, _ in clients)
    squares = sum(w * own.square().sum().item() for w, own, _ in clients)
    gradient_squares = sum(w * own.square().sum().item() for w, _, own in clients)
    return {
        "drift.norm": (d.norm().item(), mean_norm),
        "drift.mean_norm": (mean_norm, mean_norm),
        "drift.dispersion": (sum(w * (own - d).square().sum().item() for w, own, _ in clients), squares),
        "gradients.norm": (g.norm().item(), math.sqrt(gradient_squares)),
        "gradients.zeta2": (sum(w * (own - g).square().sum().item() for w, _, own in clients), gradient_squares),
    }


def _control_measures(clients: Sequence[tuple[float, Tensor, Tensor, Tensor]]) -> dict[str, tuple[float, float]]:
    """Of SCAFFOLD's controls from (w_i, c_i, c - c_i, grad f_i(x)) as the round begins."""
    distance = sum(w * correction.norm().item() for w, _, correction, _ in clients)
    return {"algorithm.distance": (distance, sum(w * c_i.norm().item() for w, c_i, _, _ in clients) + distance)}
