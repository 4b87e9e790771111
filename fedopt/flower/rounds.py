"""What a strategy knows between the messages of one run, and how the replies of a round become the next model."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from flwr.app import ArrayRecord, Message, MetricRecord
from torch import Tensor

from fedopt.algorithms.base import ServerRound, shares
from fedopt.errors import Diverged, RunStopped
from fedopt.flower.arrays import Entries, as_vectors
from fedopt.flower.messages import BUFFERS, LOSS, METRICS, NUMBERS, ORDER, SAMPLES, UP
from fedopt.flower.roster import Roster
from fedopt.round.admission import Refusal, examine
from fedopt.round.federation import Broadcast, Numbers, Update
from fedopt.round.gathering.mean import Mean
from fedopt.round.method import Method
from fedopt.round.plausibility import Bounds, lengths, remember
from fedopt.round.state import ServerState
from fedopt.text import plain
from fedopt.vectors.layout import Vectors, largest_magnitude
from fedopt.vectors.totals import NumberSums

UNREADABLE = (KeyError, TypeError, ValueError, OverflowError, EOFError)
"""What reading a reply raises, whatever a client sends in place of an update."""


@dataclass
class Gathered:
    """What came of one round's orders."""

    used: list[int] = field(default_factory=list)
    """Clients whose updates are in the sums."""
    left_out: dict[int, str] = field(default_factory=dict)
    """The other clients that replied, each with the reason."""
    diverged: bool = False
    lengths: list[dict[str, float]] = field(default_factory=list)
    metrics: NumberSums = field(default_factory=NumberSums)
    counters: dict[str, int] = field(default_factory=dict)

    def refuse(self, refusal: Refusal) -> None:
        self.left_out[refusal.client] = refusal.reason
        self.diverged |= refusal.diverged


class Rounds:
    """The state of one run of a strategy."""

    def __init__(self, method: Method, seed: int, entries: Entries, roster: Roster, x: Tensor) -> None:
        """`x` is the initial vector [P]."""
        self.entries, self.roster = entries, roster
        self.state = ServerState.initial(x, method)
        self._method, self._seed = method, seed
        self._share_of = shares(method.algorithm.weighting, roster.samples)
        self._collector, self._buffers = method.gathering.collector(), Mean().collector()
        self._bounds = Bounds(vectors=method.sends_up, numbers=method.algorithm.sends_numbers)
        self._arrays, self.number = ArrayRecord(), 0

    def start(self, number: int, arrays: ArrayRecord) -> Vectors:
        """Starts the round of this number from these arrays; what travels down beside them, [P] each."""
        self._arrays, self.number = arrays, number
        self.state = replace(self.state, x=self.entries.read(arrays))
        return self._method.sends_down(self.state.server)

    def gather(self, replies: Iterable[Message]) -> Gathered:
        """Folds in the replies that may be used."""
        gathered = Gathered()
        self._collector.begin()
        self._buffers.begin()
        for reply in replies:
            client = self.roster.client_at(reply.metadata.src_node_id)
            if client is None or client in gathered.used:
                continue
            if reply.has_error():
                gathered.left_out[client] = plain(reply.error.reason)
                continue
            self._fold(gathered, client, reply)
        return gathered

    def _fold(self, gathered: Gathered, client: int, reply: Message) -> None:
        try:
            update, metrics = self._read(client, reply)
            buffers = self._read_buffers(reply)
        except UNREADABLE as error:
            gathered.left_out[client] = f"its reply cannot be read: {plain(error)}"
            return
        broadcast = Broadcast(self.number, self.state.x)
        refusal = examine(update, broadcast, self.roster.samples[client], self._bounds, self.state.norms)
        if refusal is None and buffers is not None and not bool(buffers[0].isfinite().all()):
            refusal = Refusal(client, "its buffers are not finite", diverged=True)
        if refusal is not None:
            gathered.refuse(refusal)
            return
        share = self._share_of[client]
        self._collector.fold(client, update.up, update.numbers.own, share)
        if buffers is not None:
            averaged, counters = buffers
            if len(averaged):
                self._buffers.fold(client, {BUFFERS: averaged}, {}, share)
            for name, count in counters.items():
                gathered.counters[name] = max(count, gathered.counters.get(name, count))
        gathered.metrics.fold({name: value for name, value in metrics.items() if math.isfinite(value)}, share)
        gathered.lengths.append(lengths(update.up))
        gathered.used.append(client)

    def _read(self, client: int, reply: Message) -> tuple[Update, dict[str, float]]:
        """The update, and the numbers that are averaged for the app's user alone."""
        content = reply.content
        fields, own = content.config_records[ORDER], content.metric_records.get(NUMBERS, MetricRecord())
        metrics = {name: _number(value) for name, value in content.metric_records[METRICS].items()}
        samples = content.metric_records[METRICS][SAMPLES]
        numbers = Numbers(
            samples=int(_number(samples)),
            steps=int(_number(fields["steps"])),
            loss=metrics.get(LOSS, 0.0),
            own={name: _number(value) for name, value in own.items() if name in self._method.numbers},
        )
        up = as_vectors(content.array_records[UP])
        metrics.pop(SAMPLES)
        return Update(int(_number(fields["round"])), client, numbers, up, 0, 0), metrics

    def _read_buffers(self, reply: Message) -> tuple[Tensor, dict[str, int]] | None:
        """The averaged buffers as one vector, and the counters; None if the model has neither."""
        if not self.entries.buffers and not self.entries.counters:
            return None
        return self.entries.read_buffers(reply.content.array_records[BUFFERS], self._arrays)

    def advance(self, gathered: Gathered) -> tuple[ArrayRecord, MetricRecord]:
        """The next model and means over the clients; the state goes on to the next round."""
        totals = self._collector.totals()
        round_ = ServerRound(self.number, self._seed)
        x, server = self._method.advance(round_, self.state.x, self.state.server, totals)
        if not all(math.isfinite(largest_magnitude(vector)) for vector in (x, *server.values())):
            raise Diverged(f"round {self.number}: the new model is not finite; a smaller rate is the likely remedy")
        accepted = {**self.state.accepted, **dict.fromkeys(gathered.used, self.number)}
        self.state = ServerState(self.number, x, server, accepted, remember(self.state.norms, gathered.lengths))
        buffers = self._buffers.totals().mean(BUFFERS) if self.entries.buffers else None
        arrays = self.entries.write(self._arrays, x, buffers, gathered.counters)
        metrics = {name: gathered.metrics.mean(name) for name in sorted(gathered.metrics.names())}
        numbers = self._method.numbers_of(round_, totals)
        own = {f"{self._method.algorithm.name}.{name}": number for name, number in numbers.items()}
        return arrays, MetricRecord({**metrics, **own})


def _number(value: object) -> float:
    if not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


def too_few(number: int, needed: int, gathered: Gathered) -> RunStopped:
    """The error of a round in which too few updates can be used."""
    listed = sorted(gathered.left_out.items())[:10]
    reasons = "; ".join(f"client {client}: {reason}" for client, reason in listed) or "no node answered"
    return (Diverged if gathered.diverged else RunStopped)(
        f"round {number} has {len(gathered.used)} of the {needed} updates it needs (min_replies): {reasons}"
    )
