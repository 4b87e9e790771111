"""Evaluation against plain torch, and the same bits from any number of threads."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fedopt.evaluation import BATCH, Evaluator
from fedopt.parameters import Layout
from fedopt.task import Task


@pytest.mark.parametrize("samples", [7, 3 * BATCH + 5])
def test_loss_and_accuracy_are_those_of_the_whole_test_set_on_any_number_of_threads(samples: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, 9, generator=generator)
    y = torch.randint(0, 4, (samples,), generator=generator)
    y[y == 2] = 1  # a class without samples
    module = nn.Sequential(nn.Linear(9, 20), nn.Tanh(), nn.Linear(20, 4))
    layout = Layout.of(module)
    model = torch.randn(layout.size, generator=generator)
    evaluator = Evaluator(Task(module), layout, x, y, classes=4)
    alone = evaluator(model)
    with torch.no_grad():
        outputs = torch.func.functional_call(module, layout.split(model), (x,))
    right = outputs.argmax(1) == y
    assert alone.loss == pytest.approx(F.cross_entropy(outputs, y).item(), rel=1e-5)
    assert alone.accuracy == right.double().mean().item()
    assert alone.class_accuracy[2] is None
    assert alone.class_accuracy[1] == right[y == 1].double().mean().item()
    for threads in (2, 3):
        evaluator.threads = threads
        assert evaluator(model) == alone
