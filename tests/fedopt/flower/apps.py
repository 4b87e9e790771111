"""A Flower App over the digits, as a user would write it: own training loop, torch's optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor, nn
from torch.nn import functional as F

from fedopt.algorithms.base import Algorithm
from fedopt.data.loading import load_dataset
from fedopt.data.partition import partition
from fedopt.experiment.experiment import Experiment
from fedopt.flower import FullPass, hello, load_model, local_work
from fedopt.models.build import build_model

Samples = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Digits:
    """What `fedopt run` trains on, for one experiment."""

    experiment: Experiment
    clients: list[Samples]

    @classmethod
    def of(cls, experiment: Experiment) -> Digits:
        dataset = load_dataset(experiment.data, experiment.run.seed)
        parts = partition(dataset, experiment.data, experiment.run.seed)
        x, y = dataset.x_train.to(getattr(torch, experiment.run.dtype)), dataset.y_train
        return cls(experiment, [(x[part], y[part]) for part in parts])

    def model(self) -> nn.Module:
        shape = tuple(self.clients[0][0].shape[1:])
        return build_model(self.experiment.model, shape, 10, self.experiment.run.seed).to(self.clients[0][0].dtype)

    def start(self) -> ArrayRecord:
        return ArrayRecord(self.model().state_dict())


@dataclass
class Training:
    """What the clients of an app do."""

    clients: list[Samples]
    model: Callable[[], nn.Module]
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    batch_size: int | Literal["full"] = 16
    epochs: int | None = 2
    steps_of: Callable[[int], int | None] = lambda client: None
    clip: float | None = None
    rate_of: Callable[[int, int], float] | None = None
    """The learning rate of a round's step, as a scheduler sets it."""
    algorithms: Sequence[type[Algorithm]] = ()
    before_reply: Callable[[int, int], None] = lambda client, round_: None
    """Called with client and round before a reply is sent; it may raise."""
    seen: list[tuple[int, int]] = field(default_factory=list)
    """(round, client) of each training."""

    def app(self) -> ClientApp:
        app = ClientApp()

        @app.query("hello")
        def _hello(msg: Message, context: Context) -> Message:
            return hello(msg, context, samples=len(self._of(context)[1]))

        @app.train()
        def _train(msg: Message, context: Context) -> Message:
            x, y = self._of(context)
            model = self.model()
            model.train()
            full = FullPass([(x, y)])
            local = local_work(msg, context, model, samples=len(y), full=full, algorithms=self.algorithms)
            optimizer = local.attach(self.optimizer(model), clip=self.clip)
            losses = []
            steps = self.steps_of(local.client)
            for step, rows in enumerate(local.batches(self.batch_size, None if steps else self.epochs, steps)):
                if self.rate_of is not None:
                    optimizer.param_groups[0]["lr"] = self.rate_of(local.round, step)
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x[rows]), y[rows])
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                losses.append(loss.item())
            reply = local.reply(sum(losses) / len(losses), {"steps": len(losses)})
            self.seen.append((local.round, local.client))
            self.before_reply(local.client, local.round)
            return reply

        @app.evaluate()
        def _evaluate(msg: Message, context: Context) -> Message:
            x, y = self._of(context)
            model = self.model()
            load_model(msg, context, model, algorithms=self.algorithms)
            model.eval()
            with torch.no_grad():
                accuracy = (model(x).argmax(1) == y).double().mean().item()
            metrics = MetricRecord({"num-examples": len(y), "accuracy": accuracy})
            return Message(RecordDict({"metrics": metrics}), reply_to=msg)

        return app

    def _of(self, context: Context) -> Samples:
        number = context.node_config["partition-id"]
        assert isinstance(number, int)
        return self.clients[number]
