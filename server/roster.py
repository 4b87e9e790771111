"""Which node is which client: the server asks every node that connects, and checks the answer.

Node ids are random and change when a node restarts; client numbers are fixed by the experiment. A node that cannot be
a client (its number is taken or out of range, its key is another client's, its data have another shape) gets the
reason in a farewell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from flwr.app import ConfigRecord, Message, RecordDict

from fedopt.round.plausibility import AdmissionSettings
from fedopt.text import plain
from fedopt.wire import FAREWELL, HELLO, Farewell, Greeting, Hello, Malformed
from server.links import Link


class ClientConnection(NamedTuple):
    """A client's connection: its node id and how often that node has connected."""

    node: int
    connects: int


class Roster:
    """The connected clients."""

    def __init__(
        self,
        link: Link,
        hello: Hello,
        clients: int,
        owners: Mapping[int, int],
        report: Callable[[str], None],
        admission: AdmissionSettings,
    ) -> None:
        """`owners` maps a node that registered with a client's key to that client's number."""
        self._most_samples = admission.largest_samples
        self._link, self._clients, self._owners, self._report = link, clients, owners, report
        self._hello = RecordDict({"hello": ConfigRecord(dict(hello.fields()))})
        self._asked: dict[str, ClientConnection] = {}
        self._known: set[ClientConnection] = set()
        self._rejected: dict[str, ClientConnection] = {}
        """Unanswered farewells to rejected nodes."""
        self._connection_of: dict[int, ClientConnection] = {}
        self.samples: dict[int, int] = {}
        """n_i of every client that has ever connected."""

    def update(self) -> None:
        """Sends a hello to new nodes, reads their greetings, and removes clients that have disconnected."""
        online = {ClientConnection(node, connects) for node, connects in self._link.nodes().items()}
        for client, connection in list(self._connection_of.items()):
            if connection not in online:
                del self._connection_of[client]
                self._report(f"client {client} disconnected")
        self._known &= online
        for connection in sorted(online - self._known):
            self._known.add(connection)
            (message_id,) = self._link.push([Message(self._hello, connection.node, HELLO)])
            if message_id:
                self._asked[message_id] = connection
        for open_ in (self._asked, self._rejected):
            stale = [message_id for message_id, connection in open_.items() if connection not in online]
            self._link.discard(stale)
            for message_id in stale:
                del open_[message_id]
        if self._asked or self._rejected:
            for reply in self._link.pull([*self._asked, *self._rejected]):
                answered = reply.metadata.reply_to_message_id
                if answered in self._asked:
                    self._read_greeting(self._asked.pop(answered), reply)
                self._rejected.pop(answered, None)  # the answer to a farewell has no content

    def _read_greeting(self, connection: ClientConnection, reply: Message) -> None:
        if reply.has_error():
            if connection in self._known:
                self._report(f"a node cannot say which client it is: {plain(reply.error.reason)}")
            return
        try:
            greeting = Greeting.read(reply.content.config_records.get("greeting", ConfigRecord()))
        except Malformed as error:
            self._reject(connection, f"its greeting is malformed: {error}")
            return
        except Exception as error:  # an untrusted reply may raise anything when it is read; it must not end the run
            self._reject(connection, f"its greeting is malformed: reading it raised {type(error).__name__}")
            return
        refusal = self._refusal(connection.node, greeting)
        if refusal:
            self._reject(connection, refusal)
            return
        self._connection_of[greeting.client] = connection
        self.samples[greeting.client] = greeting.samples
        self._report(f"client {greeting.client} connected with {greeting.samples} samples")

    def _refusal(self, node: int, greeting: Greeting) -> str:
        client = greeting.client
        owner = self._owners.get(node)
        if owner is not None and owner != client:
            return f"its key is that of client {owner}; it cannot act as client {client}"
        if not 0 <= client < self._clients:
            return f"there is no client {client}: the federation's clients are 0 to {self._clients - 1}"
        if greeting.refusal:
            return greeting.refusal
        if client in self._connection_of:
            return f"client {client} is connected already; give this one another number"
        if greeting.samples > self._most_samples:
            most = self._most_samples
            return f"it reports {greeting.samples} samples, more than {most} (admission.largest_samples)"
        before = self.samples.get(client, greeting.samples)
        if before != greeting.samples:
            return f"client {client} had {before} samples before, and now reports {greeting.samples}"
        return ""

    def _reject(self, connection: ClientConnection, reason: str) -> None:
        reason = plain(reason)
        self._report(f"rejected a client: {reason}")
        (message_id,) = self._link.push([_farewell(connection.node, Farewell(reason, failed=True))])
        if message_id:
            self._rejected[message_id] = connection

    def dismiss(self, reason: str) -> list[str]:
        """Tells every connected client that the run is over. Returns the messages' ids."""
        connections = list(self._connection_of.values())
        return self._link.push(
            [_farewell(connection.node, Farewell(reason, failed=False)) for connection in connections]
        )

    def ask_again(self, connection: ClientConnection) -> str:
        """Sends another hello. Returns the message's id, or "" if it cannot be sent; the caller reads the answer."""
        (message_id,) = self._link.push([Message(self._hello, connection.node, HELLO)])
        return message_id

    def connection_of(self, client: int) -> ClientConnection | None:
        """The client's connection, or None."""
        return self._connection_of.get(client)

    def missing(self) -> list[int]:
        """Clients that are not connected."""
        return [client for client in range(self._clients) if client not in self._connection_of]


def _farewell(node: int, farewell: Farewell) -> Message:
    return Message(RecordDict({"farewell": ConfigRecord(dict(farewell.fields()))}), node, FAREWELL)
