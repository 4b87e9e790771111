"""The Federation behind a Flower Grid: work orders leave as messages to nodes, updates come back as replies.

A client that fails is left out. A client that loses its connection gets its order again if it reconnects while the
round is open: until every other client has answered and there are enough updates, or until the deadline. A round with
too few updates at the deadline waits for late and disconnected clients for at most `run.patience` seconds.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from torch import Tensor

from fedopt.channel.base import BadPayload
from fedopt.channel.channel import payload_bytes
from fedopt.drift.gradients import GRADIENT
from fedopt.errors import BrokenRun, RunStopped
from fedopt.experiment.experiment import Experiment
from fedopt.round.federation import Absence, Broadcast, Score, Update, WorkOrder
from fedopt.storage.files import replace_file
from fedopt.text import plain
from fedopt.vectors.layout import Vectors
from fedopt.wire import TRAIN, Malformed, Order, read_update
from fedopt.wire_arrays import as_arrays, read_vectors, unpack, unpack_payload
from server.client_evaluation import ClientEvaluation
from server.flower_internals import ErrorCode
from server.grid import REFUSED
from server.links import Link
from server.options import DeploymentOptions
from server.roster import ClientConnection, Roster
from server.unresponsive import UnresponsiveClients

LOST = {ErrorCode.NODE_UNAVAILABLE, ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE}
"""Error codes that mean only that the client's answer did not arrive."""

LOST_CONNECTION = "its connection was lost"

log = logging.getLogger("fedopt.server")

ATTEMPTS = 3
"""How often a client that reconnects gets the same order."""


@dataclass
class OpenRound:
    """The state of one round while it runs."""

    broadcast: Broadcast
    orders: dict[int, WorkOrder]
    sent: dict[str, tuple[int, ClientConnection]] = field(default_factory=dict)
    """Unanswered messages by id: the client, and the connection that the message went to."""
    before: dict[int, tuple[int, int] | None] = field(default_factory=dict)
    """The traffic of each client when its order was sent."""
    lost: dict[int, str] = field(default_factory=dict)
    """Clients without an open order, and why. They may reconnect."""
    attempts: dict[int, int] = field(default_factory=dict)
    updates: int = 0


class GridFederation:
    """N clients behind a Grid. Implements `fedopt.round.federation.Federation`."""

    trains_ahead = False

    def __init__(
        self,
        link: Link,
        roster: Roster,
        experiment: Experiment,
        options: DeploymentOptions,
        *,
        least: int,
        federation: str,
    ) -> None:
        """A round needs `least` updates. `federation` identifies the run to its clients."""
        self.name = options.engine
        self._link, self._roster, self._run = link, roster, experiment.run
        self._report, self._check = options.report, options.check
        self._clients, self._least = experiment.data.clients, least
        method = experiment.method
        self._channel, self._vectors, self._numbers = method.channel, method.sends_up, method.numbers
        self._largest_loss = experiment.admission.largest_loss
        self._federation = federation
        self._saved: dict[int, int] = {}
        self._unresponsive = UnresponsiveClients(link, roster)
        self._round: OpenRound | None = None

    @property
    def samples(self) -> Sequence[int]:
        return [self._roster.samples[client] for client in range(self._clients)]

    def wait_for_clients(self) -> None:
        """Waits until all clients are connected, for at most `run.patience` seconds.

        Raises RunStopped if a client has never connected by then, because its number of samples is unknown.
        """
        until, reported = time.monotonic() + self._run.patience, False
        while True:
            self._roster.update()
            missing = self._roster.missing()
            if not missing:
                return
            if time.monotonic() >= until:
                break
            if not reported:
                self._report(f"waiting for {_clients(missing)}, at most {self._run.patience:g} s")
                reported = True
            self._wait(until)
        unknown = [client for client in missing if client not in self._roster.samples]
        if unknown:
            raise RunStopped(
                f"{_clients(unknown)} did not come within {self._run.patience:g} s (run.patience); nothing was trained"
            )
        self._report(f"going on without {_clients(missing)}")

    def train(self, broadcast: Broadcast, orders: Sequence[WorkOrder]) -> Generator[Update | Absence, None, None]:
        round_ = OpenRound(broadcast, {order.client: order for order in orders})
        round_.lost = {order.client: "it is not connected" for order in orders}
        self._round = round_
        self._link.expect_replies(self._vector_bytes(broadcast))
        try:
            self._wait_for_enough(round_)
            yield from self._collect(round_)
            yield from (Absence(client, reason) for client, reason in round_.lost.items())
        finally:
            self._link.discard(round_.sent)

    def _collect(self, round_: OpenRound) -> Iterator[Update | Absence]:
        """Yields answers as they arrive, until no more are needed. RunStopped if `run.patience` runs out."""
        deadline, patience = time.monotonic() + self._run.deadline, math.inf
        while True:
            if self._send_to_connected(round_) and patience < math.inf:
                # A client that reconnected gets the full deadline.
                deadline, patience = max(deadline, time.monotonic() + self._run.deadline), math.inf
            yield from self._answers(round_)
            now, short = time.monotonic(), round_.updates < self._least
            if not round_.sent and not (short and self._may_return(round_)):
                return
            if now >= deadline and not short:
                self._drop_late(round_)
                return
            if short and patience == math.inf and (now >= deadline or not round_.sent):
                patience = now + self._run.patience
                waited = _clients(self._pending(round_))
                self._report(f"too few updates: waiting for {waited}, at most {self._run.patience:g} s")
            if now >= patience:
                raise RunStopped(
                    f"round {round_.broadcast.round} has {round_.updates} of the {self._least} updates it needs "
                    f"(run.min_replies), and {_clients(self._pending(round_))} did not answer within "
                    f"{self._run.patience:g} s more (run.patience); the model of the round before is kept"
                )
            self._wait(deadline if patience == math.inf else patience)
            self._roster.update()
            self._unresponsive.update()
            self._drop_disconnected(round_)

    def _drop_late(self, round_: OpenRound) -> None:
        late = f"it did not answer within {self._run.deadline:g} s (run.deadline)"
        for client, connection in round_.sent.values():
            round_.lost[client] = late
            self._unresponsive.missed_deadline(client, connection, round_.broadcast.round)

    def _wait_for_enough(self, round_: OpenRound) -> None:
        """Waits until enough of the cohort is connected for the round. RunStopped if `run.patience` runs out."""
        until, reported = time.monotonic() + self._run.patience, False
        while True:
            self._roster.update()
            self._unresponsive.update()
            missing = [client for client in round_.orders if self._unreachable(client)]
            if len(round_.orders) - len(missing) >= self._least:
                return
            if time.monotonic() >= until:
                raise RunStopped(
                    f"too few clients: of this round's {len(round_.orders)}, {_clients(missing)} did not come within "
                    f"{self._run.patience:g} s (run.patience), and {self._least} are needed (run.min_replies); "
                    "the model of the round before is kept"
                )
            if not reported:
                self._report(f"too few clients: waiting for {_clients(missing)}, at most {self._run.patience:g} s")
                reported = True
            self._wait(until)

    def _wait(self, until: float) -> None:
        self._check()
        self._link.wait(max(0.0, until - time.monotonic()))

    def _unreachable(self, client: int) -> bool:
        """Whether the client is disconnected or does not respond, so that an order to it would be useless."""
        return self._roster.connection_of(client) is None or bool(self._unresponsive.reason(client))

    def _send_to_connected(self, round_: OpenRound) -> bool:
        """Sends open orders to connected clients. Returns whether any was sent."""
        for client in round_.lost:
            round_.lost[client] = self._unresponsive.reason(client) or round_.lost[client]
        ready = [
            (client, connection)
            for client in list(round_.lost)
            if (connection := self._roster.connection_of(client)) is not None
            and round_.attempts.get(client, 0) < ATTEMPTS
            and not self._unresponsive.reason(client)
        ]
        if not ready:
            return False
        shared: dict[str, Array] = {}  # one object for all clients, so it is stored once
        messages = []
        for client, connection in ready:
            order = Order(round_.broadcast, round_.orders[client], self._saved.get(client))
            for name, array in as_arrays({k: v for k, v in order.vectors.items() if k not in shared}).items():
                shared[name] = Array(array)
            content = RecordDict({"order": ConfigRecord(dict(order.fields())), "vectors": ArrayRecord(shared)})
            group = str(round_.broadcast.round)
            messages.append(Message(content, connection.node, TRAIN, ttl=2 * self._run.deadline + 60, group_id=group))
            round_.before[client] = self._link.traffic(connection.node)
        for (client, connection), message_id in zip(ready, self._link.push(messages), strict=True):
            round_.attempts[client] = round_.attempts.get(client, 0) + 1
            if message_id:
                round_.sent[message_id] = (client, connection)
                del round_.lost[client]
        return True

    def _drop_disconnected(self, round_: OpenRound) -> None:
        """Withdraws orders whose connections have ended. A client that reconnected does not know its old order."""
        gone = [
            key for key, (client, connection) in round_.sent.items() if self._roster.connection_of(client) != connection
        ]
        self._link.discard(gone)
        for key in gone:
            client, _ = round_.sent.pop(key)
            round_.lost[client] = LOST_CONNECTION

    def _answers(self, round_: OpenRound) -> Iterator[Update | Absence]:
        for reply in self._link.pull(list(round_.sent)):
            answered = round_.sent.pop(reply.metadata.reply_to_message_id, None)
            if answered is None:
                continue  # a second answer to one order
            client, connection = answered
            if reply.has_error():
                if reply.error.code in LOST:
                    round_.lost[client] = LOST_CONNECTION
                elif reply.error.code == REFUSED:
                    self._unresponsive.responded(client)
                    yield Absence(client, plain(f"its update was refused: {reply.error.reason}"))
                else:
                    self._unresponsive.responded(client)
                    yield Absence(client, plain(f"it failed: {reply.error.reason}"))
                continue
            self._unresponsive.responded(client)
            try:
                update = self._read(reply, client, connection, round_)
            except Malformed as error:
                yield Absence(client, plain(f"its update was refused: {error}"))
                continue
            except Exception as error:  # an untrusted reply may raise anything when it is read; it must not end the run
                kind = type(error).__name__
                log.warning("reading the update of client %s raised %s: %s", client, kind, plain(error))
                yield Absence(client, f"its update was refused: reading it raised {kind}")
                continue
            round_.updates += 1
            yield update

    def _read(self, reply: Message, client: int, connection: ClientConnection, round_: OpenRound) -> Update:
        content = reply.content
        if "update" not in content.config_records or "vectors" not in content.array_records:
            raise Malformed("it lacks its update or its vectors")
        packed = content.array_records["vectors"]
        up = self._receive(packed, round_.broadcast)
        traffic = self._traffic(client, connection, round_, sum(len(array.data) for array in packed.values()))
        update = read_update(content.config_records["update"], up, self._numbers, traffic)
        if update.client != client:
            raise Malformed(f"it says it is client {update.client}")
        return update

    def _receive(self, packed: Mapping[str, Array], broadcast: Broadcast) -> Vectors:
        """The vectors that arrived, through the channel if it has stages. Malformed if they do not fit the model."""
        measured = [GRADIENT] if broadcast.gradient else []
        if not self._channel or broadcast.survey:
            names = set(measured) if broadcast.survey else {*self._vectors, *measured}
            return read_vectors(unpack(packed, broadcast.x, names), broadcast.x, names)
        dense = {name: array for name, array in packed.items() if name in measured}
        up = read_vectors(unpack(dense, broadcast.x, measured), broadcast.x, measured)
        payload = unpack_payload(
            {name: array for name, array in packed.items() if name not in measured}, self._vector_bytes(broadcast)
        )
        payload = {name: array.to(broadcast.x.device) for name, array in payload.items()}
        try:
            return {**self._channel.receive(payload, dict.fromkeys(self._vectors, broadcast.x)), **up}
        except BadPayload as error:
            raise Malformed(str(error)) from error

    def _vector_bytes(self, broadcast: Broadcast) -> int:
        """Bytes of a client's vectors without a channel; a payload has no reason to be larger."""
        return (len(self._vectors) + broadcast.gradient) * broadcast.x.nbytes

    def _traffic(self, client: int, connection: ClientConnection, round_: OpenRound, up: int) -> tuple[int, int]:
        """Bytes to and from the client since its order was sent; the vectors' bytes where the link does not count."""
        before, now = round_.before[client], self._link.traffic(connection.node)
        if before is None or now is None:
            return payload_bytes({"x": round_.broadcast.x}, round_.broadcast.down), up
        return now[0] - before[0], now[1] - before[1]

    def _may_return(self, round_: OpenRound) -> list[int]:
        """Clients without an open order that would get it again if they reconnected."""
        return [client for client in round_.lost if round_.attempts.get(client, 0) < ATTEMPTS]

    def _pending(self, round_: OpenRound) -> list[int]:
        """Clients from which an update may still come."""
        return sorted([*self._may_return(round_), *(client for client, _ in round_.sent.values())])

    def refused(self, client: int) -> None:
        """The client's last update is not used, so the round may need another."""
        if self._round is not None:
            self._round.updates -= 1

    def evaluate(self, x: Tensor, round_: int, accepted: Mapping[int, int]) -> Sequence[Score]:
        """Asks every client that is connected and responds."""
        self._unresponsive.update()
        present = {
            client: connection
            for client in range(self._clients)
            if (connection := self._roster.connection_of(client)) is not None and not self._unresponsive.reason(client)
        }
        evaluation = ClientEvaluation(
            self._link, self._roster, present, report=self._report, largest_loss=self._largest_loss
        )
        return evaluation.run(x, round_, accepted, self._run.deadline, self._check)

    def mean_state(self, accepted: Mapping[int, int], share_of: Sequence[float]) -> None:
        """Unknown: each client stores its own state."""

    def commit(self, accepted: Mapping[int, int], ahead: bool = False) -> None:
        """Does nothing: each order tells its client which round was accepted."""

    def save(self, folder: Path, accepted: Mapping[int, int]) -> None:
        """Stores the federation's name and all n_i. Clients store their own state."""
        folder.mkdir(exist_ok=True)
        known = {"federation": self._federation, "samples": dict(enumerate(self.samples))}
        replace_file(folder / "federation.json", (json.dumps(known) + "\n").encode())

    def prune(self, folder: Path, accepted: Mapping[int, int]) -> None:
        """The checkpoint is complete: clients may delete states of earlier rounds."""
        self._saved = dict(accepted)

    def restore(self, folder: Path, accepted: Mapping[int, int]) -> None:
        self._saved = dict(accepted)

    def dismiss(self, reason: str) -> None:
        """Tells connected clients that the run is over, and waits up to 3 seconds for their answers."""
        waiting = {message_id for message_id in self._roster.dismiss(reason) if message_id}
        until = time.monotonic() + 3.0
        while waiting and time.monotonic() < until:
            for reply in self._link.pull(list(waiting)):
                waiting.discard(reply.metadata.reply_to_message_id)
            if waiting:
                self._link.wait(until - time.monotonic())


def read_known(folder: Path) -> tuple[str, dict[int, int]]:
    """What `save` stored: the federation's name, and n_i of each client."""
    file = folder / "federation.json"
    try:
        known = json.loads(file.read_bytes())
        return str(known["federation"]), {int(client): int(n) for client, n in known["samples"].items()}
    except FileNotFoundError as error:
        raise BrokenRun(f"{file} is missing: this run was not deployed; resume it with fedopt run") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise BrokenRun(f"{file} is torn or was edited") from error


def _clients(clients: Sequence[int]) -> str:
    listed = ", ".join(map(str, clients[:10])) + (f" and {len(clients) - 10} more" if len(clients) > 10 else "")
    return f"client{'s' * (len(clients) > 1)} {listed}"
