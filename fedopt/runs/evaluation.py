"""Loss and accuracy of models on a test set: of all of it, of each class, of each client's share."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedopt.precision import on_gpu
from fedopt.round.federation import Score
from fedopt.task import Task
from fedopt.vectors.layout import Layout

BATCH = 1024


@dataclass(frozen=True)
class Evaluation:
    """Loss and accuracy of one model on one test set."""

    loss: float
    accuracy: float
    class_accuracy: tuple[float | None, ...]
    """None for a class without test samples."""


class Evaluator:
    """Evaluates flat models [P] on one test set, in batches."""

    def __init__(self, task: Task, layout: Layout, x_test: Tensor, y_test: Tensor, classes: int) -> None:
        # A copy: other threads may train the task's module meanwhile.
        self._task, self._layout = Task(copy.deepcopy(task.module).eval(), task.loss), layout
        self._x, self._y = x_test, y_test
        self._of_class = torch.bincount(y_test, minlength=classes)
        self.threads = 1
        """Batches that are evaluated at the same time. The result is the same to the bit."""

    @property
    def samples(self) -> int:
        return len(self._y)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return tuple(self._x.shape[1:])

    @property
    def classes(self) -> int:
        return len(self._of_class)

    def __call__(self, x: Tensor) -> Evaluation:
        losses, correct = self._outcomes(x)
        right = torch.bincount(self._y[correct], minlength=len(self._of_class)).tolist()
        return Evaluation(
            loss=_mean(losses),
            accuracy=correct.sum().item() / len(self._y),
            class_accuracy=tuple(r / n if n else None for r, n in zip(right, self._of_class.tolist(), strict=True)),
        )

    def by_owner(self, x: Tensor, owners: np.ndarray, clients: Sequence[int]) -> list[Score]:
        """Evaluates x [P] on the share of each client that has one; `owners` is the client of each test sample."""
        losses, correct = (tensor.cpu().numpy().astype(np.float64) for tensor in self._outcomes(x))
        most = max(clients, default=-1) + 1
        samples, loss, right = (
            np.bincount(owners, weights, minlength=most) for weights in (np.ones(len(owners)), losses, correct)
        )
        return [
            Score(client, int(samples[client]), loss[client] / samples[client], right[client] / samples[client])
            for client in clients
            if samples[client]
        ]

    def of_each(self, model_of: Callable[[int], Tensor], owners: np.ndarray, clients: Sequence[int]) -> list[Score]:
        """Evaluates each client's own model, `model_of` its number, [P], on its share, if it has one."""
        scores: list[Score] = []
        for client in clients:
            rows = torch.from_numpy(np.flatnonzero(owners == client)).to(self._y.device)
            if len(rows):
                losses, correct = self._outcomes(model_of(client), rows)
                scores.append(Score(client, len(rows), _mean(losses), correct.sum().item() / len(rows)))
        return scores

    @torch.no_grad()
    def _outcomes(self, x: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The loss of each sample, or of those in `rows`, and whether the model predicts it, [n] each."""
        for name, view in self._layout.split(x).items():
            self._task.module.get_parameter(name).copy_(view)
        with on_gpu("full"):
            if rows is not None:
                return self._of_samples(self._x[rows], self._y[rows])
            return self._of_all()

    def _of_all(self) -> tuple[Tensor, Tensor]:
        starts = range(0, len(self._y), BATCH)
        if self.threads == 1 or len(starts) == 1:
            outcomes = [self._of_batch(start) for start in starts]
        else:
            own = torch.get_num_threads()
            with ThreadPoolExecutor(self.threads, initializer=torch.set_num_threads, initargs=(own,)) as pool:
                outcomes = list(pool.map(self._of_batch, starts))
        losses, correct = zip(*outcomes, strict=True)
        return torch.cat(losses), torch.cat(correct)

    def _of_batch(self, start: int) -> tuple[Tensor, Tensor]:
        return self._of_samples(self._x[start : start + BATCH], self._y[start : start + BATCH])

    @torch.no_grad()
    def _of_samples(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self._task.module(x)
        return self._task.loss(outputs, y, reduction="none"), outputs.argmax(dim=-1) == y


def _mean(losses: Tensor) -> float:
    wide = torch.float64 if losses.device.type != "mps" else losses.dtype
    return losses.sum(dtype=wide).item() / len(losses)
