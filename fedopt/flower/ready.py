"""A ready ClientApp for a model and data: the training loop of `local_work`'s example, with torch's optimizers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor, nn
from torch.nn import functional as F

from fedopt.flower.full_pass import FullPass
from fedopt.flower.local import load_model, local_work
from fedopt.flower.roster import hello
from fedopt.task import Loss

Samples = tuple[Tensor, Tensor]

MakeOptimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]

FULL_PASS = 256
"""Samples that are read at once in a pass over all of a client's data."""


@dataclass(frozen=True)
class Training:
    """How the clients of `client_app` train."""

    optimizer: MakeOptimizer
    """From the trained parameters to an optimizer, as `lambda parameters: torch.optim.SGD(parameters, lr=0.1)`."""
    batch_size: int | Literal["full"] = 16
    epochs: int | str | None = None
    steps: int | str | None = None
    """Local work a round: passes over the client's data (5 by default), or a number of minibatches; or, for example,
    "uniform(1, 5)", from which each client draws in each round."""
    stragglers: float = 0.0
    """The probability with which a client does only a part of its work in a round."""
    loss: Loss = F.cross_entropy
    clip: float | None = None
    """Largest norm of a corrected gradient; no clipping when absent."""
    device: str = "cpu"


def client_app(
    model: Callable[[], nn.Module],
    data: Callable[[Context], Samples],
    training: Training,
    test: Callable[[Context], Samples] | None = None,
) -> ClientApp:
    """A ClientApp that trains `model()` on the samples and targets `data(context)`.

    It evaluates on `test(context)`, by default on the same samples: the mean loss as eval_loss and, for whole-numbered
    targets, the share of correct classes as accuracy.
    """
    app = ClientApp()

    @app.query("hello")
    def _hello(msg: Message, context: Context) -> Message:
        return hello(msg, context, samples=len(data(context)[1]))

    @app.train()
    def _train(msg: Message, context: Context) -> Message:
        return _one_round(msg, context, model().to(training.device), data(context), training)

    @app.evaluate()
    def _evaluate(msg: Message, context: Context) -> Message:
        module = model().to(training.device)
        load_model(msg, context, module)
        x, y = (tensor.to(training.device) for tensor in (test or data)(context))
        return Message(RecordDict({"metrics": _score(module, x, y, training.loss)}), reply_to=msg)

    return app


def _one_round(msg: Message, context: Context, module: nn.Module, samples: Samples, training: Training) -> Message:
    x, y = (tensor.to(training.device) for tensor in samples)
    full = FullPass(list(zip(torch.split(x, FULL_PASS), torch.split(y, FULL_PASS), strict=True)), training.loss)
    local = local_work(msg, context, module, samples=len(y), full=full)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = local.attach(training.optimizer(trained), training.clip)
    module.train()
    losses: list[Tensor] = []
    for rows in local.batches(training.batch_size, training.epochs, training.steps, training.stragglers):
        optimizer.zero_grad()
        loss = training.loss(module(x[rows]), y[rows])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.detach())
    return local.reply(train_loss=torch.stack(losses).mean().item())


@torch.no_grad()
def _score(module: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> MetricRecord:
    module.eval()
    outputs = torch.cat([module(part) for part in torch.split(x, FULL_PASS)])
    metrics = MetricRecord({"num-examples": len(y), "eval_loss": loss(outputs, y).item()})
    if not y.is_floating_point():
        metrics["accuracy"] = (outputs.argmax(1) == y).double().mean().item()
    return metrics
