"""The client's side of an algorithm around a training loop of the user's own.

    @app.train()
    def train(msg, context):
        model, (x, y) = Net(), load_data(context)
        local = local_work(msg, context, model, samples=len(y))          # loads the global model into `model`
        optimizer = local.attach(torch.optim.SGD(model.parameters(), lr=0.05))
        for rows in local.batches(batch_size=16, epochs=5):
            optimizer.zero_grad()
            F.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()                                             # corrects the gradient first
        return local.reply()

A step's gradient is what `backward` left in `.grad`. The algorithm corrects it before the optimizer sees it, so that
momentum and Adam's moments are made of corrected gradients. All else is measured from what the loop really did: steps,
rates, raw gradients and the displacement.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from torch import Tensor, nn

from fedopt.algorithms.base import Algorithm, own_loop_refusal
from fedopt.algorithms.local_work import LocalStart, LocalWork, OnDemand
from fedopt.data.batches import plan_batches
from fedopt.data.step_counts import StepCounts
from fedopt.errors import InvalidExperiment
from fedopt.flower.arrays import Entries, as_record, as_vectors
from fedopt.flower.client_state import read_state, write_state
from fedopt.flower.corrected import CorrectedSteps
from fedopt.flower.full_pass import FullPass, load_vector
from fedopt.flower.messages import BUFFERS, DOWN, LOSS, METRICS, NUMBERS, ORDER, SAMPLES, UP, Order, read_algorithm
from fedopt.optimizers.local import LocalSettings
from fedopt.seeding import Purpose, stream
from fedopt.vectors.layout import Layout, Vectors

AnyOptimizer = TypeVar("AnyOptimizer", bound=torch.optim.Optimizer)


def local_work(
    msg: Message,
    context: Context,
    model: nn.Module,
    samples: int,
    *,
    full: FullPass | None = None,
    algorithms: Sequence[type[Algorithm]] = (),
    arrays: str = "arrays",
) -> Local:
    """Begins a round of local training: loads the global model into `model` and reads the strategy's order.

    Move the model to its device before. `samples` is n_i, as in this client's `hello`. `full` gives the client's data
    to algorithms that need the gradient over all of them, for example Scaffold(variant="full-gradient"). `algorithms`
    are algorithm classes of the app's own that the strategy may run; fedopt's are known. `arrays` is the strategy's
    arrayrecord_key.
    """
    order = Order.read(msg)
    algorithm = read_algorithm(order.algorithm, algorithms)
    if not algorithm.fits_own_loops:
        raise InvalidExperiment(own_loop_refusal(algorithm))
    entries = _load(msg, model, order, arrays)
    layout = entries.layout
    x = layout.flatten(model)
    down = as_vectors(msg.content.array_records[DOWN], x) if DOWN in msg.content.array_records else {}
    kept = read_state(context, order.accepted, algorithm.client_state(x), x)
    state = {name: vector[None] for name, vector in kept.items()}
    gradients = OnDemand(lambda: full_pass(algorithm, full, model, layout, x))
    beginning = LocalStart(
        x=x,
        down=down,
        state=state,
        steps=x.new_zeros(1),  # not known beforehand: algorithms that read them are refused
        samples=x.new_tensor([samples]),
        rates=(),
        full_gradient=OnDemand(lambda: gradients()[0][None]),
        layout=Rows(layout),
    )
    start = algorithm.start(beginning)
    if start is not None:
        load_vector(model, layout, start.reshape(-1))
    steps = CorrectedSteps(algorithm, algorithm.begin(beginning), model, layout)
    exchange = _Exchange(msg, context, order, samples)
    return Local(exchange, model, algorithm, _Start(entries, x, down, state), steps, gradients)


def load_model(
    msg: Message,
    context: Context,
    model: nn.Module,
    *,
    algorithms: Sequence[type[Algorithm]] = (),
    arrays: str = "arrays",
) -> None:
    """Loads the model of an evaluation message: the global one, or this client's own if the algorithm personalizes."""
    order = Order.read(msg)
    algorithm = read_algorithm(order.algorithm, algorithms)
    layout = _load(msg, model, order, arrays).layout
    if algorithm.is_personal:
        x = layout.flatten(model)
        state = read_state(context, order.accepted, algorithm.client_state(x), x)
        load_vector(model, layout, algorithm.personal(x, state))


def _load(msg: Message, model: nn.Module, order: Order, arrays: str) -> Entries:
    """Loads the global model; InvalidExperiment if the server trains other parameters than this model has."""
    if arrays not in msg.content.array_records:
        raise InvalidExperiment(f"the message has no {arrays!r}; give local_work the strategy's arrayrecord_key")
    entries = Entries.of(model)
    if entries.layout.names != order.trained:
        own, theirs = set(entries.layout.names), set(order.trained)
        named = sorted(own ^ theirs)[:1] or ["their order"]
        raise InvalidExperiment(
            f"the server and this client disagree on the trained parameters ({named[0]}); give the strategy the model, "
            "as in Scaffold(model, ...), with the same requires_grad as the client's"
        )
    model.load_state_dict(msg.content.array_records[arrays].to_torch_state_dict())
    return entries


@dataclass(frozen=True)
class _Exchange:
    """The message of a round, and whom it reached."""

    msg: Message
    context: Context
    order: Order
    samples: int


@dataclass(frozen=True)
class _Start:
    """What a round begins with."""

    entries: Entries
    x: Tensor
    """[P]"""
    down: Vectors
    """[P] each."""
    state: Vectors
    """[1, P] each."""


@dataclass(frozen=True)
class Local:
    """One round's local work of one client."""

    _exchange: _Exchange
    model: nn.Module
    algorithm: Algorithm
    _start: _Start
    _steps: CorrectedSteps
    _full: OnDemand[tuple[Tensor, Tensor]]

    @property
    def round(self) -> int:
        """From 1."""
        return self._exchange.order.round

    @property
    def client(self) -> int:
        """This client's place among all clients, from 0."""
        return self._exchange.order.client

    def attach(self, optimizer: AnyOptimizer, clip: float | None = None) -> AnyOptimizer:
        """The same optimizer, whose every `step()` now corrects the gradients first.

        `clip` is the largest norm of the corrected gradient of a step. Clipping in the loop, before `step`, clips what
        the algorithm takes for the raw gradient.
        """
        self._steps.attach(optimizer, clip)
        return optimizer

    def batches(
        self,
        batch_size: int | Literal["full"] = 16,
        epochs: int | str | None = None,
        steps: int | str | None = None,
        stragglers: float = 0.0,
    ) -> Iterator[Tensor]:
        """The minibatches that `fedopt run` takes in this round: indices into the client's samples, int64 [b] each.

        The arguments are keys of the experiment's [local] section, such as epochs="uniform(1, 5)".

        They follow from the strategy's seed, the round and the client. A DataLoader does as well, with other batches.
        """
        settings = LocalSettings(batch_size=batch_size, epochs=epochs, steps=steps, stragglers=stragglers)
        seed, samples = self._exchange.order.seed, self._exchange.samples
        rng = stream(seed, Purpose.BATCHES, self.round, self.client)
        plan = plan_batches(samples, settings, rng, StepCounts(settings, seed).at(samples, self.round, self.client))
        for positions, count in zip(plan.positions, plan.counts.tolist(), strict=True):
            yield torch.tensor(positions[:count])

    def reply(self, train_loss: float | None = None, metrics: Mapping[str, float] | None = None) -> Message:
        """Ends the round: the reply for the strategy. The client's new state is in the context from then on.

        `train_loss` and `metrics` are averaged by the strategy, weighted as the algorithm weights clients.
        """
        if self._steps.steps == 0:
            raise InvalidExperiment("no step was taken by an attached optimizer; use local.attach(optimizer)")
        finished = self.algorithm.finish(self._work())
        order, entries = self._exchange.order, self._start.entries
        numbers = {name: float(value.reshape(())) for name, value in finished.numbers.items()}
        sent = set(self.algorithm.sends_numbers)
        loss = {} if train_loss is None else {LOSS: float(train_loss)}
        own = {name: float(value) for name, value in (metrics or {}).items()}
        content = RecordDict(
            {
                UP: as_record({name: rows.reshape(-1) for name, rows in finished.up.items()}),
                METRICS: MetricRecord({**own, **loss, SAMPLES: self._exchange.samples}),
                NUMBERS: MetricRecord({n: value for n, value in numbers.items() if n in sent or math.isfinite(value)}),
                ORDER: ConfigRecord({"round": order.round, "steps": self._steps.steps}),
            }
        )
        if entries.buffers or entries.counters:
            stored = self.model.state_dict()
            content[BUFFERS] = as_record({name: stored[name] for name in (*entries.buffers, *entries.counters)})
        # Last: if anything above fails, the state stays that of the round before.
        state = {name: rows.reshape(-1) for name, rows in finished.state.items()}
        write_state(self._exchange.context, order.round, order.accepted, state)
        return Message(content, reply_to=self._exchange.msg)

    def _work(self) -> LocalWork:
        start, steps, layout = self._start, self._steps, self._start.entries.layout
        y = layout.flatten(self.model)
        mean = steps.mean_gradient
        full = self._full
        return LocalWork(
            x=start.x,
            y=y[None],
            displacement=(y - start.x)[None],
            state=start.state,
            steps=start.x.new_tensor([steps.steps]),
            samples=start.x.new_tensor([self._exchange.samples]),
            rates=start.x.new_tensor([steps.rates]),
            mean_gradient=None if mean is None else mean[None],
            full_gradient=OnDemand(lambda: full()[0][None]),
            full_loss=OnDemand(lambda: full()[1][None]),
            layout=Rows(layout),
            down=start.down,
            prepared=steps.prepared,
        )


def full_pass(
    algorithm: Algorithm, full: FullPass | None, model: nn.Module, layout: Layout, x: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradient and the loss at x over all of the client's data, [P] and a number."""
    if full is None:
        raise InvalidExperiment(
            f"{algorithm.name} needs the gradient over all of a client's data: "
            "local_work(..., full=FullPass(batches, loss))"
        )
    return full.gradient_and_loss(model, layout, x)


class Rows:
    """Implements `fedopt.vectors.layout.RowLayout` for rows without gaps: Q is P."""

    def __init__(self, layout: Layout) -> None:
        self.layout, self.width = layout, layout.size
        self.starts: Sequence[int] = [sum(layout.sizes[:place]) for place in range(len(layout.sizes))]

    def pack(self, flat: Tensor) -> Tensor:
        return flat

    def unpack(self, rows: Tensor) -> Tensor:
        return rows

    def views(self, rows: Tensor) -> dict[str, Tensor]:
        return self.layout.split(rows)
