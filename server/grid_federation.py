"""The Federation behind a Flower Grid: work orders leave as messages to nodes, updates come back as replies.

A client that fails is left out. One that is lost gets its order again if it is back while the round is still open,
that is, until every other client has answered and there are enough updates, or until the deadline. A round that has too
few updates by then waits for those that are late or lost as long as its patience lasts.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.app.message import Array
from flwr.common.constant import ErrorCode
from torch import Tensor

from fedopt.drift.gradients import GRADIENT
from fedopt.errors import BrokenRun, RunStopped
from fedopt.experiment.experiment import RunSettings
from fedopt.round.federation import Absence, Score, Update, WorkOrder
from fedopt.round.plausibility import AdmissionSettings
from fedopt.storage.files import replace_file
from fedopt.text import plain
from fedopt.wire import TRAIN, Malformed, Order, as_arrays, read_update, unpack
from server.client_evaluation import Census
from server.grid import REFUSED
from server.links import Line
from server.roster import Place, Roster
from server.unresponsive import Silence

LOST = {ErrorCode.NODE_UNAVAILABLE, ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE}
"""Errors that say nothing about the client but that its answer did not arrive."""

LOST_CONNECTION = "its connection was lost"

log = logging.getLogger("fedopt")

ATTEMPTS = 3
"""How often a client that is lost and comes back gets the same order."""


@dataclass
class OpenRound:
    """A round under way."""

    orders: dict[int, WorkOrder]
    sent: dict[str, tuple[int, Place]] = field(default_factory=dict)
    """Messages without an answer: which client each is for, and where it went."""
    before: dict[int, tuple[int, int] | None] = field(default_factory=dict)
    """The traffic of each client when its order left."""
    lost: dict[int, str] = field(default_factory=dict)
    """Clients that are not there, and why: they may come back."""
    attempts: dict[int, int] = field(default_factory=dict)
    updates: int = 0

    @property
    def number(self) -> int:
        return next(iter(self.orders.values())).round


class GridFederation:
    """N clients behind a Grid. Implements `fedopt.round.federation.Federation`."""

    trains_ahead = False

    def __init__(
        self,
        line: Line,
        roster: Roster,
        run: RunSettings,
        admission: AdmissionSettings,
        *,
        clients: int,
        least: int,
        names: set[str],
        tells: frozenset[str],
        federation: str,
        tell: Callable[[str], None],
        check: Callable[[], None],
        name: str,
    ) -> None:
        """`least` updates are needed, of vectors with these `names`, and with numbers of those that it `tells`.

        `federation` names the run to its clients.
        """
        self.name = name
        self._line, self._roster, self._run = line, roster, run
        self._tell, self._check = tell, check
        self._clients, self._least, self._names = clients, least, names
        self._tells = tells
        self._largest_loss = admission.largest_loss
        self._federation = federation
        self._saved: dict[int, int] = {}
        self._silence = Silence(line, roster)
        self._round: OpenRound | None = None

    @property
    def samples(self) -> Sequence[int]:
        return [self._roster.samples[client] for client in range(self._clients)]

    def gather(self) -> None:
        """Waits until every client has been here once, so that all n_i are known, and all are here if possible.

        RunStopped, with those that are missing, when the patience is over.
        """
        until, told = time.monotonic() + self._run.patience, False
        while True:
            self._roster.update()
            missing = self._roster.missing()
            if not missing:
                return
            if time.monotonic() >= until:
                break
            if not told:
                self._tell(f"waiting for {_clients(missing)}, at most {self._run.patience:g} s")
                told = True
            self._wait(until)
        unknown = [client for client in missing if client not in self._roster.samples]
        if unknown:
            raise RunStopped(
                f"{_clients(unknown)} did not come within {self._run.patience:g} s (run.patience); nothing was trained"
            )
        self._tell(f"going on without {_clients(missing)}")

    def train(self, orders: Sequence[WorkOrder]) -> Generator[Update | Absence, None, None]:
        round_ = OpenRound({order.client: order for order in orders})
        round_.lost = {order.client: "it is not connected" for order in orders}
        self._round = round_
        self._line.make_room((len(self._names) + orders[0].gradient) * orders[0].x.nbytes)
        try:
            self._await_enough(round_)
            yield from self._until_answered(round_)
            yield from (Absence(client, reason) for client, reason in round_.lost.items())
        finally:
            self._line.discard(round_.sent)

    def _until_answered(self, round_: OpenRound) -> Iterator[Update | Absence]:
        """Answers as they come, until none is worth waiting for. RunStopped when patience is over."""
        deadline, patience = time.monotonic() + self._run.deadline, math.inf
        while True:
            if self._send_to_those_present(round_) and patience < math.inf:
                # Who has come back has all its time.
                deadline, patience = max(deadline, time.monotonic() + self._run.deadline), math.inf
            yield from self._answers(round_)
            now, short = time.monotonic(), round_.updates < self._least
            if not round_.sent and not (short and self._may_return(round_)):
                return
            if now >= deadline and not short:
                self._leave_out_the_late(round_)
                return
            if short and patience == math.inf and (now >= deadline or not round_.sent):
                patience = now + self._run.patience
                waited = _clients(self._awaited(round_))
                self._tell(f"too few updates: waiting for {waited}, at most {self._run.patience:g} s")
            if now >= patience:
                raise RunStopped(
                    f"round {round_.number} has {round_.updates} of the {self._least} updates it needs "
                    f"(run.min_replies), and {_clients(self._awaited(round_))} did not answer within "
                    f"{self._run.patience:g} s more (run.patience); the model of the round before is kept"
                )
            self._wait(deadline if patience == math.inf else patience)
            self._roster.update()
            self._silence.update()
            self._give_up_on_the_gone(round_)

    def _leave_out_the_late(self, round_: OpenRound) -> None:
        late = f"it did not answer within {self._run.deadline:g} s (run.deadline)"
        for client, place in round_.sent.values():
            round_.lost[client] = late
            self._silence.late(client, place, round_.number)

    def _await_enough(self, round_: OpenRound) -> None:
        """Until as many of the cohort are here as there must be updates. RunStopped when patience is over."""
        until, told = time.monotonic() + self._run.patience, False
        while True:
            self._roster.update()
            self._silence.update()
            missing = [client for client in round_.orders if self._absent(client)]
            if len(round_.orders) - len(missing) >= self._least:
                return
            if time.monotonic() >= until:
                raise RunStopped(
                    f"too few clients: of this round's {len(round_.orders)}, {_clients(missing)} did not come within "
                    f"{self._run.patience:g} s (run.patience), and {self._least} are needed (run.min_replies); "
                    "the model of the round before is kept"
                )
            if not told:
                self._tell(f"too few clients: waiting for {_clients(missing)}, at most {self._run.patience:g} s")
                told = True
            self._wait(until)

    def _wait(self, until: float) -> None:
        self._check()
        self._line.wait(max(0.0, until - time.monotonic()))

    def _absent(self, client: int) -> bool:
        """Whether an order to the client would be pointless."""
        return self._roster.place_of(client) is None or bool(self._silence.reason(client))

    def _send_to_those_present(self, round_: OpenRound) -> bool:
        """Whether an order was sent."""
        for client in round_.lost:
            round_.lost[client] = self._silence.reason(client) or round_.lost[client]
        ready = [
            (client, place)
            for client in list(round_.lost)
            if (place := self._roster.place_of(client)) is not None
            and round_.attempts.get(client, 0) < ATTEMPTS
            and not self._silence.reason(client)
        ]
        if not ready:
            return False
        shared: dict[str, Array] = {}  # one object for all clients, and so one upload
        messages = []
        for client, place in ready:
            order = Order(round_.orders[client], self._saved.get(client))
            for name, array in as_arrays({k: v for k, v in order.vectors.items() if k not in shared}).items():
                shared[name] = Array(array)
            content = RecordDict({"order": ConfigRecord(dict(order.fields())), "vectors": ArrayRecord(shared)})
            group = str(order.work.round)
            messages.append(Message(content, place.node, TRAIN, ttl=2 * self._run.deadline + 60, group_id=group))
            round_.before[client] = self._line.traffic(place.node)
        for (client, place), message_id in zip(ready, self._line.push(messages), strict=True):
            round_.attempts[client] = round_.attempts.get(client, 0) + 1
            if message_id:
                round_.sent[message_id] = (client, place)
                del round_.lost[client]
        return True

    def _give_up_on_the_gone(self, round_: OpenRound) -> None:
        """Clients that are not where their orders went: they are gone, or have come back and know nothing of them."""
        gone = [key for key, (client, place) in round_.sent.items() if self._roster.place_of(client) != place]
        self._line.discard(gone)
        for key in gone:
            client, _ = round_.sent.pop(key)
            round_.lost[client] = LOST_CONNECTION

    def _answers(self, round_: OpenRound) -> Iterator[Update | Absence]:
        for reply in self._line.pull(list(round_.sent)):
            answered = round_.sent.pop(reply.metadata.reply_to_message_id, None)
            if answered is None:
                continue  # a second answer to one order
            client, place = answered
            if reply.has_error():
                if reply.error.code in LOST:
                    round_.lost[client] = LOST_CONNECTION
                elif reply.error.code == REFUSED:
                    self._silence.heard(client)
                    yield Absence(client, plain(f"its update was refused: {reply.error.reason}"))
                else:
                    self._silence.heard(client)
                    yield Absence(client, plain(f"it failed: {reply.error.reason}"))
                continue
            self._silence.heard(client)
            try:
                update = self._read(reply, client, place, round_)
            except Malformed as error:
                yield Absence(client, plain(f"its update was refused: {error}"))
                continue
            except Exception as error:  # a stranger's reply: whatever reading it raises, it ends no run
                kind = type(error).__name__
                log.warning("reading the update of client %s raised %s: %s", client, kind, plain(error))
                yield Absence(client, f"its update was refused: reading it raised {kind}")
                continue
            round_.updates += 1
            yield update

    def _read(self, reply: Message, client: int, place: Place, round_: OpenRound) -> Update:
        content = reply.content
        if "update" not in content.config_records or "vectors" not in content.array_records:
            raise Malformed("it lacks its update or its vectors")
        order = round_.orders[client]
        names = self._names | ({GRADIENT} if order.gradient else set())
        arrays = unpack(content.array_records["vectors"], order.x, names)
        update = read_update(
            content.config_records["update"],
            arrays,
            order.x,
            names=names,
            tells=self._tells,
            traffic=self._traffic(client, place, round_, arrays),
        )
        if update.client != client:
            raise Malformed(f"it says it is client {update.client}")
        return update

    def _traffic(self, client: int, place: Place, round_: OpenRound, arrays: Mapping[str, object]) -> tuple[int, int]:
        """Bytes of the client's calls since its order left; where nobody counts, those of the vectors alone."""
        before, now = round_.before[client], self._line.traffic(place.node)
        if before is None or now is None:
            order = round_.orders[client]
            down = order.x.nbytes + sum(vector.nbytes for vector in order.down.values())
            return down, len(arrays) * order.x.nbytes
        return now[0] - before[0], now[1] - before[1]

    def _may_return(self, round_: OpenRound) -> list[int]:
        """Lost clients whose answer would still count."""
        return [client for client in round_.lost if round_.attempts.get(client, 0) < ATTEMPTS]

    def _awaited(self, round_: OpenRound) -> list[int]:
        """Clients from which an update may still come."""
        return sorted([*self._may_return(round_), *(client for client, _ in round_.sent.values())])

    def refused(self, client: int) -> None:
        """The update that just came of this client is not used: the round may need another in its place."""
        if self._round is not None:
            self._round.updates -= 1

    def evaluate(self, x: Tensor, round_: int) -> Sequence[Score]:
        """Asks every client that is there and answers."""
        self._silence.update()
        present = {
            client: place
            for client in range(self._clients)
            if (place := self._roster.place_of(client)) is not None and not self._silence.reason(client)
        }
        census = Census(self._line, self._roster, present, tell=self._tell, largest_loss=self._largest_loss)
        return census.take(x, round_, self._run.deadline, self._check)

    def mean_kept(self, accepted: Mapping[int, int], share_of: Sequence[float]) -> None:
        """Out of sight: clients keep their own."""

    def settle(self, accepted: Mapping[int, int], ahead: bool = False) -> None:
        """Nothing: each order tells its client."""

    def save(self, folder: Path, accepted: Mapping[int, int]) -> None:
        """Clients keep their own; the server keeps what it must know to find them again."""
        folder.mkdir(exist_ok=True)
        known = {"federation": self._federation, "samples": dict(enumerate(self.samples))}
        replace_file(folder / "federation.json", (json.dumps(known) + "\n").encode())

    def prune(self, folder: Path, accepted: Mapping[int, int]) -> None:
        """The checkpoint counts from now on: states of rounds before it may go."""
        self._saved = dict(accepted)

    def restore(self, folder: Path, accepted: Mapping[int, int]) -> None:
        self._saved = dict(accepted)

    def dismiss(self, reason: str) -> None:
        """Tells the clients that are there that the run is over, and gives them a moment to hear it."""
        waiting = {message_id for message_id in self._roster.dismiss(reason) if message_id}
        until = time.monotonic() + 3.0
        while waiting and time.monotonic() < until:
            for reply in self._line.pull(list(waiting)):
                waiting.discard(reply.metadata.reply_to_message_id)
            if waiting:
                self._line.wait(until - time.monotonic())


def read_known(folder: Path) -> tuple[str, dict[int, int]]:
    """What `save` stored: the federation's name, and n_i of its clients."""
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
