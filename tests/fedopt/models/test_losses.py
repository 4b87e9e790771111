"""Losses train and evaluate as plain PyTorch does with the same formula; what is no loss is refused with the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fedopt
from fedopt.errors import InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.family import outside_names
from fedopt.models.build import build_model
from fedopt.models.losses import as_loss, check_loss
from fedopt.models.tasks import make_task, task_notes
from fedopt.runs.setup import set_up

HERE = __name__
LR = 0.1
WEIGHTS = torch.arange(1.0, 11.0, dtype=torch.float64)


def linear(sample_shape: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(sample_shape[1] * sample_shape[2], classes))


def log_linear(sample_shape: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Sequential(linear(sample_shape, classes), nn.LogSoftmax(dim=-1))


class Lit(lightning.LightningModule):  # type: ignore[misc]
    """With everything that a LightningModule for a Trainer has."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(64, classes)
        self.criterion = nn.CrossEntropyLoss(label_smoothing=0.2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layer(x.flatten(1))
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        loss: Tensor = self.criterion(self(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters())


class Bare(lightning.LightningModule):  # type: ignore[misc]
    """Without a loss."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layer(x.flatten(1))
        return logits


def with_reduction(outputs: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    each = _squared(outputs, targets)
    return each.mean() if reduction == "mean" else each


def of_each(outputs: Tensor, targets: Tensor) -> Tensor:
    return _squared(outputs, targets)


def of_all(outputs: Tensor, targets: Tensor) -> Tensor:
    return _squared(outputs, targets).mean()


def of_each_weighted(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, weight=WEIGHTS.to(outputs), reduction="none")


def _squared(outputs: Tensor, targets: Tensor) -> Tensor:
    """Brier score of one sample."""
    return (outputs.softmax(-1) - F.one_hot(targets, outputs.shape[-1])).square().sum(-1)


def brier(outputs: Tensor, targets: Tensor) -> Tensor:
    """|p|^2 - 2 p_y + 1, averaged."""
    p = outputs.exp() / outputs.exp().sum(-1, keepdim=True)
    return (p.square().sum(-1) - 2 * p[range(len(p)), targets] + 1).mean()


def smoothed(share: float) -> Callable[[Tensor, Tensor], Tensor]:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        """(1 - s) times the target's negative log-probability, s times the mean of all (Szegedy et al. 2016)."""
        logs = outputs - outputs.logsumexp(-1, keepdim=True)
        return -((1 - share) * logs[range(len(logs)), targets] + share * logs.mean(-1)).mean()

    return loss


def hinge(outputs: Tensor, targets: Tensor) -> Tensor:
    """max(0, 1 - z_y + z_j), averaged over all classes, of which y itself does not count."""
    margins = (1 - outputs[range(len(outputs)), targets, None] + outputs).clamp(min=0)
    margins[range(len(margins)), targets] = 0
    return (margins.sum(-1) / outputs.shape[-1]).mean()


def negative_log(outputs: Tensor, targets: Tensor) -> Tensor:
    return -outputs[range(len(outputs)), targets].mean()


def weighted(outputs: Tensor, targets: Tensor) -> Tensor:
    logs = outputs.log_softmax(-1)
    return -(WEIGHTS[targets] * logs[range(len(logs)), targets]).mean()


@pytest.mark.parametrize(
    ("keys", "formula"),
    [
        ({"name": f"{HERE}:linear", "label_smoothing": 0.1}, smoothed(0.1)),
        ({"name": f"{HERE}:linear", "loss": "multi_margin_loss"}, hinge),
        ({"name": f"{HERE}:log_linear", "loss": "nll_loss"}, negative_log),
        ({"name": f"{HERE}:linear", "loss": f"{HERE}:with_reduction"}, brier),
        ({"name": f"{HERE}:linear", "loss": f"{HERE}:of_each"}, brier),
        ({"name": f"{HERE}:linear", "loss": f"{HERE}:of_all"}, brier),
        ({"name": f"{HERE}:linear", "loss": f"{HERE}:of_each_weighted"}, weighted),
        ({"name": f"{HERE}:Lit"}, smoothed(0.2)),
    ],
    ids=lambda value: "-".join(map(str, value.values())).replace(f"{HERE}:", "") if isinstance(value, dict) else "",
)
def test_a_round_descends_on_the_loss_of_the_formula(
    tmp_path: Path, keys: dict[str, Any], formula: Callable[[Tensor, Tensor], Tensor]
) -> None:
    """One client with all data, one step: x+ = x - lr * gradient, and the record has the loss at x+."""
    experiment = Experiment(
        data={"clients": 1, "partition": "iid"},
        model=keys,
        local={"steps": 1, "batch_size": "full", "lr": LR},
        run={"rounds": 1, "dtype": "float64", "workers": 1, "cohort": 1},
    )
    history = fedopt.run(experiment, tmp_path / "run")
    setup = set_up(experiment)
    module, data = setup.problem.task.module, setup.dataset
    loss = formula(module(data.x_train), data.y_train)
    parameters = list(module.parameters())
    gradients = torch.autograd.grad(loss, parameters)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.sub_(LR * gradient)
        at_the_end = formula(module(data.x_test), data.y_test)
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(history.weights[name], parameter.detach(), rtol=1e-12, atol=1e-14)
    assert history.records[0].train_loss == pytest.approx(loss.item(), rel=1e-12)
    assert history.records[0].test_loss == pytest.approx(at_the_end.item(), rel=1e-12)


def test_a_lightning_module_s_loss_gives_way_to_the_experiment_s() -> None:
    x, y = torch.randn(8, 1, 8, 8), torch.arange(8)

    def notes_and_loss(**keys: Any) -> tuple[str, float]:
        family = Experiment(model=keys).model
        module = build_model(family, (1, 8, 8), 10, seed=0)
        task = make_task(family, module, x, y)
        return "; ".join(task_notes(family, module)), task.loss(torch.eye(8, 10), y).item()

    logits, targets = torch.eye(8, 10), torch.arange(8)
    notes, loss = notes_and_loss(name=f"{HERE}:Lit")
    assert "Lit.training_step, Lit.configure_optimizers: not called; [local] says how clients train" in notes
    assert "the loss is Lit.criterion" in notes
    assert loss == pytest.approx(smoothed(0.2)(logits, targets).item())
    notes, loss = notes_and_loss(name=f"{HERE}:Lit", loss="cross_entropy")
    assert "the loss is" not in notes
    assert loss == pytest.approx(smoothed(0.0)(logits, targets).item())
    notes, loss = notes_and_loss(name=f"{HERE}:Bare")
    assert notes.startswith(
        "Bare has no attribute loss, criterion or loss_fn, so that its loss is model.loss, or cross"
    )
    assert loss == pytest.approx(smoothed(0.0)(logits, targets).item())
    assert task_notes(Experiment().model, nn.Linear(2, 2)) == []


@pytest.mark.parametrize(
    ("loss", "told"),
    [
        (nn.CrossEntropyLoss(weight=torch.arange(1.0, 4.0)), r"as with class weights or a sum; give a function that"),
        (lambda outputs, targets: F.cross_entropy(outputs, targets, reduction="sum"), "as with class weights or a sum"),
        (lambda outputs, targets: outputs, r"turns 4 samples into \(4, 3\)"),
        (lambda outputs, targets: 0.5, "returned float, not a tensor|fails on a trial batch"),
        (lambda outputs, targets: outputs.detach().mean(), "cannot be differentiated"),
        (F.mse_loss, "fails on a trial batch"),
        (nn.CrossEntropyLoss, "is a class; give an object of it, as CrossEntropyLoss"),
        (nn.Linear(3, 1), "has parameters"),
        (3, "is int, not a function of outputs and targets"),
    ],
)
def test_what_is_no_loss_is_refused_with_the_reason(loss: object, told: str) -> None:
    x, y = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0])
    with pytest.raises(InvalidExperiment, match=rf"^model\.loss: it .*({told})"):
        check_loss(as_loss(loss, "it"), nn.Linear(5, 3), x, y, "it")


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"loss": "cros_entropy"}, r"model\.loss: unknown loss 'cros_entropy'; did you mean cross_entropy"),
        ({"loss": "no_such_module:loss"}, r"model\.loss: no_such_module:loss cannot be imported"),
        ({"loss": "nll_loss", "label_smoothing": 0.1}, "is a key of cross_entropy, not of nll_loss"),
        ({"label_smoothing": 1.0}, r"model\.label_smoothing"),
    ],
)
def test_a_wrong_loss_is_refused_before_anything_runs(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidExperiment, match=told):
        Experiment(model=keys)


def test_a_loss_from_outside_is_code_that_a_client_must_allow() -> None:
    assert outside_names(Experiment(model={"loss": f"{HERE}:of_all"})) == {f"{HERE}:of_all"}
