"""Loss and accuracy, or errors, of models on a test set: of all of it, of each class, of each client's share."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fedopt.models.output_losses import OutputLoss
from fedopt.precision import on_gpu
from fedopt.round.federation import Score
from fedopt.runs.regression import Regression
from fedopt.task import Task
from fedopt.vectors.layout import Layout

BATCH = 1024


@dataclass(frozen=True)
class Evaluation:
    """Loss and accuracy of one model on one test set."""

    loss: float
    accuracy: float | None
    """None where targets are numbers to predict. Of several labels a sample, or a class at each of its positions, the
    share of right ones."""
    class_accuracy: tuple[float | None, ...]
    """None for a class without test samples. Of several labels a sample, the accuracy of each."""
    regression: Regression | None = None
    """Where targets are numbers to predict."""


Kind = Literal["classes", "labels", "numbers"]


def kind_of(task: Task, y: Tensor) -> Kind:
    """What targets y [n] or [n, outputs] are: a class (or one at each position), several labels of 0 or 1, or numbers
    to predict.

    Distributions over classes count as their most likely class.
    """
    if not y.is_floating_point():
        return "classes"
    loss = task.loss.name if isinstance(task.loss, OutputLoss) else ""
    kinds: dict[str, Kind] = {"kl_div": "classes", "binary_cross_entropy_with_logits": "labels"}
    return kinds.get(loss, "numbers")


class Evaluator:
    """Evaluates flat models [P] on one test set, in batches."""

    def __init__(self, task: Task, layout: Layout, x_test: Tensor, y_test: Tensor, classes: int) -> None:
        # A copy: other threads may train the task's module meanwhile.
        self._task, self._layout = Task(copy.deepcopy(task.module).eval(), task.loss), layout
        self._x, self._y, self.classes = x_test, y_test, classes
        self._kind = kind_of(task, y_test)
        self._labels = y_test.argmax(-1) if self._kind == "classes" and y_test.is_floating_point() else y_test
        if self._kind == "classes":
            self._of_class = torch.bincount(self._labels.flatten(), minlength=classes)
        self.threads = 1
        """Batches that are evaluated at the same time. The result is the same to the bit."""

    @property
    def samples(self) -> int:
        return len(self._y)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return tuple(self._x.shape[1:])

    @property
    def predicts_numbers(self) -> bool:
        return self._kind == "numbers"

    def __call__(self, x: Tensor) -> Evaluation:
        losses, found = self._outcomes(x)
        if self._kind == "numbers":
            return Evaluation(_mean(losses), None, (), Regression.of(found, self._y))
        correct = self._correct(found, self._labels)
        if self._kind == "labels":
            of_label = tuple(correct.double().mean(0).tolist())
            return Evaluation(_mean(losses), correct.double().mean().item(), of_label)
        right = torch.bincount(self._labels[correct], minlength=len(self._of_class)).tolist()
        return Evaluation(
            loss=_mean(losses),
            accuracy=correct.sum().item() / self._labels.numel(),
            class_accuracy=tuple(r / n if n else None for r, n in zip(right, self._of_class.tolist(), strict=True)),
        )

    def by_owner(self, x: Tensor, owners: np.ndarray, clients: Sequence[int]) -> list[Score]:
        """Evaluates x [P] on the share of each client that has one; `owners` is the client of each test sample."""
        of_samples, found = self._outcomes(x)
        losses, correct = (
            tensor.cpu().numpy().astype(np.float64) for tensor in (of_samples, self._shares(found, self._labels))
        )
        most = max(clients, default=-1) + 1
        samples, loss, right = (
            np.bincount(owners, weights, minlength=most) for weights in (np.ones(len(owners)), losses, correct)
        )
        return [
            Score(
                client,
                int(samples[client]),
                loss[client] / samples[client],
                None if self.predicts_numbers else right[client] / samples[client],
            )
            for client in clients
            if samples[client]
        ]

    def of_each(self, model_of: Callable[[int], Tensor], owners: np.ndarray, clients: Sequence[int]) -> list[Score]:
        """Evaluates each client's own model, `model_of` its number, [P], on its share, if it has one."""
        scores: list[Score] = []
        for client in clients:
            rows = torch.from_numpy(np.flatnonzero(owners == client)).to(self._y.device)
            if len(rows):
                losses, found = self._outcomes(model_of(client), rows)
                right = self._shares(found, self._labels[rows]).sum().item() / len(rows)
                scores.append(Score(client, len(rows), _mean(losses), None if self.predicts_numbers else right))
        return scores

    @torch.no_grad()
    def _outcomes(self, x: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The loss of each sample, or of those in `rows`, [n], and what the model makes of it: the class, [n], that of
        each position, [n, length], or the outputs, [n, outputs]."""
        self._layout.write(self._task.module, x)
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
        losses, found = zip(*outcomes, strict=True)
        return torch.cat(losses), torch.cat(found)

    def _of_batch(self, start: int) -> tuple[Tensor, Tensor]:
        return self._of_samples(self._x[start : start + BATCH], self._y[start : start + BATCH])

    @torch.no_grad()
    def _of_samples(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self._task.module(x)
        return self._task.loss(outputs, y, reduction="none"), outputs.argmax(-1) if self._kind == "classes" else outputs

    def _correct(self, found: Tensor, labels: Tensor) -> Tensor:
        """Which of the classes, [n] or [n, length], or of the labels [n, outputs], are predicted."""
        return found == labels if self._kind == "classes" else (found > 0) == (labels > 0.5)

    def _shares(self, found: Tensor, labels: Tensor) -> Tensor:
        """Whether each sample's class is predicted, or which share of its classes or labels, [n]."""
        correct = self._correct(found, labels)
        return correct if correct.ndim == 1 else correct.double().mean(1)


def _mean(losses: Tensor) -> float:
    wide = torch.float64 if losses.device.type != "mps" else losses.dtype
    return losses.sum(dtype=wide).item() / len(losses)
