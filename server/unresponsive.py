"""Clients that are connected but do not answer: a round does not wait for them.

A client that missed the deadline in UNRESPONSIVE_AFTER rounds in a row is unresponsive. It gets no orders and counts
as disconnected until it responds. To find out, the server sends it a hello, a small message that the client answers
when it has finished its current work. Which clients a round selects does not change.
"""

from __future__ import annotations

from server.links import Link
from server.roster import ClientConnection, Roster

UNRESPONSIVE_AFTER = 2
"""Rounds in a row without an answer."""


class UnresponsiveClients:
    """Counts unanswered rounds, and notices when a client responds again."""

    def __init__(self, link: Link, roster: Roster) -> None:
        self._link, self._roster = link, roster
        self._unanswered: dict[int, list[int]] = {}
        """Per client, the consecutive rounds that it did not answer."""
        self._connection: dict[int, ClientConnection] = {}
        self._probes: dict[str, int] = {}

    def missed_deadline(self, client: int, connection: ClientConnection, round_: int) -> None:
        """The client did not answer this round's order, sent over `connection`, within the deadline."""
        rounds = self._unanswered.setdefault(client, [])
        rounds.append(round_)
        if len(rounds) == UNRESPONSIVE_AFTER:
            self._connection[client] = connection
            message_id = self._roster.ask_again(connection)
            if message_id:
                self._probes[message_id] = client

    def responded(self, client: int) -> None:
        """The client has answered a message or reconnected."""
        self._unanswered.pop(client, None)
        self._connection.pop(client, None)
        asked = [message_id for message_id, other in self._probes.items() if other == client]
        self._link.discard(asked)
        for message_id in asked:
            del self._probes[message_id]

    def update(self) -> None:
        """Checks which unresponsive clients have responded or reconnected."""
        for client, connection in list(self._connection.items()):
            if self._roster.connection_of(client) != connection:
                self.responded(client)
        if self._probes:
            for reply in self._link.pull(list(self._probes)):
                answered = reply.metadata.reply_to_message_id
                if answered in self._probes:
                    self.responded(self._probes[answered])

    def reason(self, client: int) -> str:
        """A clause that says why a round does not wait for the client; "" if it does."""
        rounds = self._unanswered.get(client, [])
        if len(rounds) < UNRESPONSIVE_AFTER:
            return ""
        return f"it did not answer in rounds {' and '.join(map(str, rounds))}, and gets no order until it responds"
