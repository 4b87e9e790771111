"""Evaluates a model on the clients' own test shares."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from torch import Tensor

from fedopt.round.federation import Score
from fedopt.text import plain
from fedopt.wire import EVALUATE, NEVER, Malformed, read_score
from fedopt.wire_arrays import as_arrays
from server.links import Link
from server.roster import ClientConnection, Roster


class ClientEvaluation:
    """One evaluation by some clients. A client that disconnects, fails or is late has no score; the run continues."""

    def __init__(
        self,
        link: Link,
        roster: Roster,
        connections: Mapping[int, ClientConnection],
        *,
        report: Callable[[str], None],
        largest_loss: float,
    ) -> None:
        self._link, self._roster, self._connections, self._report = link, roster, connections, report
        self._largest_loss = largest_loss

    def run(
        self, x: Tensor, round_: int, accepted: Mapping[int, int], deadline: float, check: Callable[[], None]
    ) -> Sequence[Score]:
        """Scores sorted by client, collected for at most `deadline` seconds. `check` may raise to end the wait.

        `accepted` says from which round's state a client makes its personal model, if the algorithm has such.
        """
        until, scores = time.monotonic() + deadline, list[Score]()
        vectors = ArrayRecord({name: Array(array) for name, array in as_arrays({"x": x}).items()})
        messages = [
            Message(
                RecordDict({"order": ConfigRecord({"accepted": accepted.get(client, NEVER)}), "vectors": vectors}),
                connection.node,
                EVALUATE,
                ttl=2 * deadline,
                group_id=str(round_),
            )
            for client, connection in self._connections.items()
        ]
        identifiers = self._link.push(messages)
        open_ = {
            identifier: client for identifier, client in zip(identifiers, self._connections, strict=True) if identifier
        }
        try:
            while open_ and time.monotonic() < until:
                for reply in self._link.pull(list(open_)):
                    client = open_.pop(reply.metadata.reply_to_message_id, None)
                    score = None if client is None else self._read(reply, client)
                    scores += [score] if score is not None else []
                self._roster.update()
                gone = [
                    key
                    for key, client in open_.items()
                    if self._roster.connection_of(client) != self._connections[client]
                ]
                self._link.discard(gone)
                for key in gone:
                    del open_[key]
                if open_:
                    check()
                    self._link.wait(max(0.0, until - time.monotonic()))
        finally:
            self._link.discard(list(open_))
        return sorted(scores, key=lambda score: score.client)

    def _read(self, reply: Message, client: int) -> Score | None:
        if reply.has_error():
            self._report(f"client {client} could not evaluate the model: {plain(reply.error.reason)}")
            return None
        try:
            if "score" not in reply.content.config_records:
                raise Malformed("it lacks its score")
            score = read_score(reply.content.config_records["score"])
            if score is not None and score.client != client:
                raise Malformed(f"it says it is client {score.client}")
            if score is not None and abs(score.loss) > self._largest_loss:
                raise Malformed(f"its loss is {score.loss:.3g} (admission.largest_loss)")
        except Malformed as error:
            self._report(f"client {client}'s score was refused: {plain(error)}")
            return None
        except Exception as error:  # an untrusted reply may raise anything when it is read; it must not end the run
            self._report(f"client {client}'s score was refused: reading it raised {type(error).__name__}")
            return None
        return score
