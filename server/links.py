"""Lines to the nodes: a Flower Grid, and what is needed beside Flower's Grid API.

Over Flower's own Grids one can only ask again after a while; a Grid in the SuperLink's process says when there is
something, forgets what is no longer wanted, and knows the bytes that travelled.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from typing import Protocol

from flwr.app import Message
from flwr.serverapp import Grid
from google.protobuf.message import DecodeError

from fedopt.text import plain
from server.grid import DirectGrid

log = logging.getLogger("fedopt")

POLL = 0.1
"""Seconds between questions to a Grid that cannot say when there is something new."""

LEAST_ROOM, ROOM_BYTES = 4, 2**26
"""Answers that may be on the server at once, uploaded or on their way: four, or as many as fit 64 MiB."""

AT_ONCE = 16
"""Replies read into memory at once from a Grid that reads all it is asked for."""


UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, DecodeError, RecursionError, MemoryError)
"""What a malformed reply makes Flower's reader raise; a SuperLink that is gone is another matter."""


class Line(Protocol):
    def nodes(self) -> Mapping[int, int]:
        """The nodes that are on line, and for each how often it has come: a node may leave and return unseen."""
        ...

    def push(self, messages: Iterable[Message]) -> list[str]:
        """Sends messages; their ids, "" for one that cannot be sent."""
        ...

    def pull(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that are there."""
        ...

    def wait(self, seconds: float) -> None:
        """Until there may be something new."""
        ...

    def make_room(self, reply_bytes: int) -> None:
        """Answers of this size are coming; no more of them should be held at once than there is room for."""
        ...

    def discard(self, message_ids: Iterable[str]) -> None:
        """No answer to these is wanted any more."""
        ...

    def traffic(self, node: int) -> tuple[int, int] | None:
        """Bytes that have travelled to the node and from it; None where nobody counts."""
        ...


class PolledLine:
    """Over any Grid."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def nodes(self) -> Mapping[int, int]:
        return dict.fromkeys(self._grid.get_node_ids(), 1)  # Flower's SuperLink says no more

    def push(self, messages: Iterable[Message]) -> list[str]:
        return [message_id or "" for message_id in self._grid.push_messages(messages)]

    def pull(self, message_ids: Iterable[str]) -> Iterable[Message]:
        ids = list(message_ids)
        for start in range(0, len(ids), AT_ONCE):
            yield from self._pull(ids[start : start + AT_ONCE])

    def _pull(self, ids: list[str]) -> Iterable[Message]:
        """Replies as Flower's own Grid reads them; a malformed one ends no run."""
        try:
            return list(self._grid.pull_messages(ids))
        except UNREADABLE as error:
            if len(ids) > 1:
                return [message for message_id in ids for message in self._pull([message_id])]
            log.warning("a reply could not be read: %s: %s", type(error).__name__, plain(error))
            return []  # its client is late, then

    def wait(self, seconds: float) -> None:
        time.sleep(min(seconds, POLL))

    def make_room(self, reply_bytes: int) -> None:
        pass  # Flower's SuperLink takes what comes

    def discard(self, message_ids: Iterable[str]) -> None:
        pass  # Flower lets them expire

    def traffic(self, node: int) -> tuple[int, int] | None:
        return None


class DirectLine(PolledLine):
    """Over a Grid in the SuperLink's own process."""

    def __init__(self, grid: DirectGrid) -> None:
        super().__init__(grid)
        self._direct = grid

    def nodes(self) -> Mapping[int, int]:
        return {node: self._direct.arrivals(node) for node in self._direct.get_node_ids()}

    def pull(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self._direct.pull_messages(message_ids)

    def wait(self, seconds: float) -> None:
        self._direct.wait(seconds)

    def make_room(self, reply_bytes: int) -> None:
        self._direct.make_room(max(LEAST_ROOM, ROOM_BYTES // max(1, reply_bytes)), reply_bytes)

    def discard(self, message_ids: Iterable[str]) -> None:
        self._direct.discard(message_ids)

    def traffic(self, node: int) -> tuple[int, int] | None:
        return self._direct.traffic(node)
