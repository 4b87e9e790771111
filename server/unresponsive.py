"""Clients that are connected and do not answer: a round does not wait for them.

A client that did not answer within the deadline in its last SILENT_AFTER rounds is silent. It gets no more orders, and
counts as one that is not connected, until it is heard of again. For that it is asked once more who it is, a small
message that a client answers as soon as it is done with what it does. Which clients a round selects does not change.
"""

from __future__ import annotations

from server.links import Line
from server.roster import Place, Roster

SILENT_AFTER = 2
"""Rounds in a row without an answer."""


class Silence:
    """Counts unanswered rounds, and listens for those that were silent."""

    def __init__(self, line: Line, roster: Roster) -> None:
        self._line, self._roster = line, roster
        self._unanswered: dict[int, list[int]] = {}
        """The rounds in a row that each client did not answer."""
        self._place: dict[int, Place] = {}
        self._questions: dict[str, int] = {}

    def late(self, client: int, place: Place, round_: int) -> None:
        """The client did not answer this round's order, which went there, within the deadline."""
        rounds = self._unanswered.setdefault(client, [])
        rounds.append(round_)
        if len(rounds) == SILENT_AFTER:
            self._place[client] = place
            message_id = self._roster.ask_again(place)
            if message_id:
                self._questions[message_id] = client

    def heard(self, client: int) -> None:
        """The client has answered something, or come back."""
        self._unanswered.pop(client, None)
        self._place.pop(client, None)
        asked = [message_id for message_id, other in self._questions.items() if other == client]
        self._line.discard(asked)
        for message_id in asked:
            del self._questions[message_id]

    def update(self) -> None:
        """Looks who has been heard of."""
        for client, place in list(self._place.items()):
            if self._roster.place_of(client) != place:
                self.heard(client)
        if self._questions:
            for reply in self._line.pull(list(self._questions)):
                answered = reply.metadata.reply_to_message_id
                if answered in self._questions:
                    self.heard(self._questions[answered])

    def reason(self, client: int) -> str:
        """Why a round does not wait for the client, as a clause; "" if it does."""
        rounds = self._unanswered.get(client, [])
        if len(rounds) < SILENT_AFTER:
            return ""
        return f"it did not answer in rounds {' and '.join(map(str, rounds))}, and gets no order until it is heard of"
