"""The reference itself, on softmax regression, whose gradients have a closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedopt.experiment.experiment import Experiment
from tests.fuzz.reference import Outcome, Problem, Reference

SIZES = (5, 1, 9)
FEATURES, CLASSES = 3, 4


class Softmax:
    """Softmax regression without a bias over clients of unequal size, in NumPy."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.x, self.y = rng.standard_normal((sum(SIZES), FEATURES)), rng.integers(0, CLASSES, sum(SIZES))
        ends = np.cumsum(SIZES)
        self.parts = [np.arange(end - size, end) for end, size in zip(ends.tolist(), SIZES, strict=True)]
        self.start = 0.1 * rng.standard_normal((CLASSES, FEATURES))

    def gradient(self, weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Of the mean cross-entropy: (softmax - one hot) x', averaged over the samples."""
        scores = np.exp(self.x[rows] @ weights.T)
        found: np.ndarray = (scores / scores.sum(1, keepdims=True) - np.eye(CLASSES)[self.y[rows]]).T @ self.x[rows]
        return found / len(rows)

    def problem(self, cohorts: Sequence[Sequence[int]], steps: int = 1) -> Problem:
        """Full batches."""
        module = nn.Linear(FEATURES, CLASSES, bias=False).double()
        with torch.no_grad():
            module.weight.copy_(torch.from_numpy(self.start))
        data = torch.from_numpy(self.x), torch.from_numpy(self.y)
        return Problem(
            module, data, data, self.parts, lambda number: cohorts[number - 1], lambda _, i: [self.parts[i]] * steps
        )


def play(problem: Problem, algorithm: dict[str, Any], local: dict[str, Any], rounds: int) -> Outcome:
    settings = {"steps": 1, "batch_size": "full", **local}
    experiment = Experiment(data={"clients": 3}, algorithm=algorithm, local=settings, run={"rounds": rounds})
    return Reference(problem, experiment).run()


def close(found: torch.Tensor | None, expected: np.ndarray) -> bool:
    assert found is not None
    return np.allclose(found.numpy(), expected.reshape(-1), rtol=1e-12, atol=1e-14)


def test_fedavg_weights_clients_by_their_samples_or_alike() -> None:
    softmax = Softmax()
    gradients = [softmax.gradient(softmax.start, softmax.parts[i]) for i in (0, 2)]
    for weighting, weights in (("samples", (5 / 14, 9 / 14)), ("uniform", (0.5, 0.5))):
        algorithm = {"name": "fedavg", "weighting": weighting, "server_lr": 0.7}
        found = play(softmax.problem([[0, 2]]), algorithm, {"lr": 0.3}, 1).x
        mean = sum(w * g for w, g in zip(weights, gradients, strict=True))
        assert close(found, softmax.start - 0.7 * 0.3 * mean)


def test_scaffold_corrects_by_the_controls_and_updates_them_with_the_shares_of_all_clients() -> None:
    """Two rounds by the paper's formulas: round one of clients 0 and 1, round two of 1 and 2."""
    softmax, lr, steps = Softmax(), 0.2, 2
    p = np.array(SIZES) / sum(SIZES)
    x, c, c_i = softmax.start, np.zeros_like(softmax.start), [np.zeros_like(softmax.start) for _ in SIZES]
    for cohort in ([0, 1], [1, 2]):
        moved: dict[int, np.ndarray] = {}
        new: dict[int, np.ndarray] = {}
        for i in cohort:
            y, raw = x, []
            for _ in range(steps):
                raw.append(softmax.gradient(y, softmax.parts[i]))
                y = y - lr * (raw[-1] - c_i[i] + c)
            moved[i], new[i] = y - x, np.mean(raw, axis=0)
            # For plain SGD the mean of the gradients is option II of the paper.
            assert np.allclose(new[i], c_i[i] - c + (x - y) / (steps * lr))
        x = x + sum(p[i] * moved[i] for i in cohort) / sum(p[i] for i in cohort)
        c = c + sum(p[i] * (new[i] - c_i[i]) for i in cohort)
        for i in cohort:
            c_i[i] = new[i]
    outcome = play(softmax.problem([[0, 1], [1, 2]], steps), {"name": "scaffold"}, {"lr": lr, "steps": steps}, 2)
    assert close(outcome.x, x)
    assert close(outcome.c, c)
    assert outcome.control_scale == pytest.approx(np.sqrt(sum(p[i] * np.sum(c_i[i] ** 2) for i in range(3))))


def test_option_one_takes_the_gradient_at_the_model_that_came_down() -> None:
    softmax = Softmax()
    algorithm = {"name": "scaffold", "variant": "full-gradient"}
    outcome = play(softmax.problem([[0, 1, 2]], 3), algorithm, {"lr": 0.2, "steps": 3}, 1)
    assert close(outcome.c, softmax.gradient(softmax.start, np.arange(sum(SIZES))))


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 4.0, math.inf])
def test_sam_steps_with_the_gradient_at_the_worst_point_of_its_ball(p: float) -> None:
    softmax, rho, lr = Softmax(), 0.3, 0.1
    every = softmax.parts[2]
    g = softmax.gradient(softmax.start, every)
    dual: float
    if p == 1:
        worst = np.where(np.abs(g) == np.abs(g).max(), rho * np.sign(g), 0.0)
        dual = float(np.abs(g).max())
    else:
        q = 1.0 if math.isinf(p) else p / (p - 1)
        dual = float((np.abs(g) ** q).sum() ** (1 / q))
        worst = rho * np.sign(g) * np.abs(g) ** (q - 1) / dual ** (q - 1)
    # What defines it: it has the length rho, and no step of that length climbs further.
    assert np.linalg.norm(worst.reshape(-1), ord=p) == pytest.approx(rho)
    assert (worst * g).sum() == pytest.approx(rho * dual)
    local = {"optimizer": "sam", "lr": lr, "rho": rho, "p": p}
    found = play(softmax.problem([[2]]), {"name": "fedavg"}, local, 1).x
    assert close(found, softmax.start - lr * softmax.gradient(softmax.start + worst, every))


def test_clipping_bounds_the_corrected_gradient() -> None:
    softmax = Softmax()
    outcome = play(softmax.problem([[0]]), {"name": "fedavg"}, {"lr": 0.5, "clip": 0.01}, 1)
    assert (outcome.x - outcome.start).norm().item() == pytest.approx(0.5 * 0.01, rel=1e-4)
    # The control is of the gradient that was not clipped.
    scaffold = play(softmax.problem([[0]]), {"name": "scaffold"}, {"lr": 0.5, "clip": 0.01}, 1)
    assert close(scaffold.c, SIZES[0] / sum(SIZES) * softmax.gradient(softmax.start, softmax.parts[0]))


def test_momentum_and_decay_are_those_of_the_formulas() -> None:
    softmax, lr, mu, decay = Softmax(), 0.1, 0.9, 0.05
    for nesterov in (False, True):
        x, velocity = softmax.start, np.zeros_like(softmax.start)
        for _ in range(3):
            g = softmax.gradient(x, softmax.parts[0]) + decay * x
            velocity = mu * velocity + g
            x = x - lr * (g + mu * velocity if nesterov else velocity)
        local = {"lr": lr, "momentum": mu, "nesterov": nesterov, "weight_decay": decay, "steps": 3}
        assert close(play(softmax.problem([[0]], 3), {"name": "fedavg"}, local, 1).x, x)


def test_training_is_in_train_mode_and_testing_in_eval_mode() -> None:
    softmax = Softmax()
    problem = softmax.problem([[0]])
    modes = []
    problem.module.register_forward_hook(lambda module, _inputs, _output: modes.append(module.training))
    play(problem, {"name": "fedavg"}, {"lr": 0.1}, 1)
    assert modes[-1] is False
    assert all(modes[:-1])
    assert len(modes) > 1
