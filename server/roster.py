"""Which node is which client: the server asks every node that comes, and believes what fits.

Node ids are random and change when a node restarts; a client's number is the experiment's. A node that cannot be a
client (a number twice or out of range, somebody else's key, data of another shape) is told why and sent away.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from flwr.app import ConfigRecord, Message, RecordDict

from fedopt.round.plausibility import AdmissionSettings
from fedopt.text import plain
from fedopt.wire import FAREWELL, HELLO, Farewell, Greeting, Hello, Malformed
from server.links import Line


class Place(NamedTuple):
    """Where a client is: a node, and the how manieth time it has come."""

    node: int
    arrival: int


class Roster:
    """The clients that are there."""

    def __init__(
        self,
        line: Line,
        hello: Hello,
        clients: int,
        owners: Mapping[int, int],
        tell: Callable[[str], None],
        admission: AdmissionSettings,
    ) -> None:
        """`owners` are the nodes that must be one certain client, by the key they came with."""
        self._most_samples = admission.largest_samples
        self._line, self._clients, self._owners, self._tell = line, clients, owners, tell
        self._hello = RecordDict({"hello": ConfigRecord(dict(hello.fields()))})
        self._asked: dict[str, Place] = {}
        self._known: set[Place] = set()
        self._sent_away: dict[str, Place] = {}
        """Farewells without an answer."""
        self._place_of: dict[int, Place] = {}
        self.samples: dict[int, int] = {}
        """n_i of every client that has ever been here."""

    def update(self) -> None:
        """Greets who has come, strikes off who has gone."""
        online = {Place(node, arrival) for node, arrival in self._line.nodes().items()}
        for client, place in list(self._place_of.items()):
            if place not in online:
                del self._place_of[client]
                self._tell(f"client {client} is gone")
        self._known &= online
        for place in sorted(online - self._known):
            self._known.add(place)
            (message_id,) = self._line.push([Message(self._hello, place.node, HELLO)])
            if message_id:
                self._asked[message_id] = place
        for open_ in (self._asked, self._sent_away):
            stale = [message_id for message_id, place in open_.items() if place not in online]
            self._line.discard(stale)
            for message_id in stale:
                del open_[message_id]
        if self._asked or self._sent_away:
            for reply in self._line.pull([*self._asked, *self._sent_away]):
                answered = reply.metadata.reply_to_message_id
                if answered in self._asked:
                    self._answered(self._asked.pop(answered), reply)
                self._sent_away.pop(answered, None)  # what it says to that is of no interest

    def _answered(self, place: Place, reply: Message) -> None:
        if reply.has_error():
            if place in self._known:
                self._tell(f"a node cannot say which client it is: {plain(reply.error.reason)}")
            return
        try:
            greeting = Greeting.read(reply.content.config_records.get("greeting", ConfigRecord()))
        except Malformed as error:
            self._send_away(place, f"its greeting makes no sense: {error}")
            return
        except Exception as error:  # a stranger's reply: whatever reading it raises, it ends no run
            self._send_away(place, f"its greeting makes no sense: reading it raised {type(error).__name__}")
            return
        refusal = self._refusal(place.node, greeting)
        if refusal:
            self._send_away(place, refusal)
            return
        self._place_of[greeting.client] = place
        self.samples[greeting.client] = greeting.samples
        self._tell(f"client {greeting.client} is here, with {greeting.samples} samples")

    def _refusal(self, node: int, greeting: Greeting) -> str:
        client = greeting.client
        owner = self._owners.get(node)
        if owner is not None and owner != client:
            return f"its key is that of client {owner}; it cannot act as client {client}"
        if not 0 <= client < self._clients:
            return f"there is no client {client}: the federation's clients are 0 to {self._clients - 1}"
        if greeting.refusal:
            return greeting.refusal
        if client in self._place_of:
            return f"client {client} is here already; give this one another number"
        if greeting.samples > self._most_samples:
            most = self._most_samples
            return f"it reports {greeting.samples} samples, more than {most} (admission.largest_samples)"
        before = self.samples.get(client, greeting.samples)
        if before != greeting.samples:
            return f"client {client} had {before} samples before, and comes back with {greeting.samples}"
        return ""

    def _send_away(self, place: Place, reason: str) -> None:
        reason = plain(reason)
        self._tell(f"sent a client away: {reason}")
        (message_id,) = self._line.push([_farewell(place.node, Farewell(reason, failed=True))])
        if message_id:
            self._sent_away[message_id] = place

    def dismiss(self, reason: str) -> list[str]:
        """Tells every client that the run is over; the messages' ids."""
        places = list(self._place_of.values())
        return self._line.push([_farewell(place.node, Farewell(reason, failed=False)) for place in places])

    def ask_again(self, place: Place) -> str:
        """Asks a node once more who it is; the message's id, "" if it cannot be sent. The answer is the caller's."""
        (message_id,) = self._line.push([Message(self._hello, place.node, HELLO)])
        return message_id

    def place_of(self, client: int) -> Place | None:
        """Where the client is, if it is there."""
        return self._place_of.get(client)

    def missing(self) -> list[int]:
        """Clients that are not there."""
        return [client for client in range(self._clients) if client not in self._place_of]


def _farewell(node: int, farewell: Farewell) -> Message:
    return Message(RecordDict({"farewell": ConfigRecord(dict(farewell.fields()))}), node, FAREWELL)
