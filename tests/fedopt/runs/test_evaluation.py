"""Evaluation against plain torch, and the same bits from any number of threads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedopt.runs.evaluation import BATCH, Evaluator
from fedopt.task import Task
from fedopt.vectors.layout import Layout


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


class Mirrored(nn.Module):
    """Puts out in training what it does not in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.layer(x)
        return z if self.training else z.flip(1)


def test_a_model_is_evaluated_in_eval_mode_and_its_owners_stays_in_train_mode() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 5, generator=generator), torch.randint(0, 3, (40,), generator=generator)
    module = Mirrored()
    evaluator = Evaluator(Task(module), Layout.of(module), x, y, classes=3)
    found = evaluator(Layout.of(module).flatten(module))
    with torch.no_grad():
        outputs = module.layer(x).flip(1)
    assert found.accuracy == (outputs.argmax(1) == y).double().mean().item()
    assert found.loss == pytest.approx(F.cross_entropy(outputs, y).item(), rel=1e-5)
    owners = np.arange(40) % 2
    scores = evaluator.by_owner(Layout.of(module).flatten(module), owners, [0, 1])
    assert scores[1].accuracy == (outputs[1::2].argmax(1) == y[1::2]).double().mean().item()
    assert module.training
