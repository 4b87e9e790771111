"""Loss and accuracy of the global model on the test set."""

from __future__ import annotations

import torch
from torch import Tensor

from fedopt.parameters import Layout
from fedopt.task import Task

BATCH = 1024


class Evaluator:
    """Evaluates flat models [P] on one test set, in batches."""

    def __init__(self, task: Task, layout: Layout, x_test: Tensor, y_test: Tensor) -> None:
        self._task, self._layout, self._x, self._y = task, layout, x_test, y_test

    @torch.no_grad()
    def __call__(self, x: Tensor) -> tuple[float, float]:
        """(mean loss, accuracy) of the model x."""
        for name, view in self._layout.split(x).items():
            self._task.module.get_parameter(name).copy_(view)
        losses = torch.zeros((), dtype=torch.float64 if x.device.type != "mps" else x.dtype, device=x.device)
        correct = torch.zeros((), dtype=torch.int64, device=x.device)
        for start in range(0, len(self._y), BATCH):
            y = self._y[start : start + BATCH]
            outputs = self._task.module(self._x[start : start + BATCH])
            losses += self._task.loss(outputs, y, reduction="none").sum()
            correct += (outputs.argmax(dim=-1) == y).sum()
        return losses.item() / len(self._y), correct.item() / len(self._y)
