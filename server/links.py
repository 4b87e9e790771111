"""Links to the nodes: a Flower Grid, and operations that Flower's Grid API lacks.

Flower's own Grids must be polled. A Grid in the SuperLink's process can also wait for messages, discard messages and
report the bytes that travelled.
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

log = logging.getLogger("fedopt.server")

POLL = 0.1
"""Seconds between polls of a Grid that has no way to wait for messages."""

LEAST_ROOM, ROOM_BYTES = 4, 2**26
"""Replies that may be on the server at once, uploaded or uploading: four, or as many as fit in 64 MiB."""

AT_ONCE = 16
"""Replies read into memory at once from a Grid that reads all requested replies."""


UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, DecodeError, RecursionError, MemoryError)
"""What Flower's reader raises for a malformed reply. It raises others if the SuperLink cannot be reached."""


class Link(Protocol):
    """Messages to and from the nodes."""

    def nodes(self) -> Mapping[int, int]:
        """Online nodes, and how often each has connected: a node may reconnect between two calls."""
        ...

    def push(self, messages: Iterable[Message]) -> list[str]:
        """Sends messages. Returns their ids, "" for a message that cannot be sent."""
        ...

    def pull(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that have arrived to these messages."""
        ...

    def wait(self, seconds: float) -> None:
        """Waits until something may have changed, at most `seconds`."""
        ...

    def expect_replies(self, reply_bytes: int) -> None:
        """Replies of this size are coming: limits how many are on the server at once."""
        ...

    def discard(self, message_ids: Iterable[str]) -> None:
        """Forgets these messages and their replies."""
        ...

    def traffic(self, node: int) -> tuple[int, int] | None:
        """Bytes sent to the node and received from it; None if they are not counted."""
        ...


class PolledLink:
    """A link over any Grid."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def nodes(self) -> Mapping[int, int]:
        return dict.fromkeys(self._grid.get_node_ids(), 1)  # Flower's SuperLink reports only which nodes are online

    def push(self, messages: Iterable[Message]) -> list[str]:
        return [message_id or "" for message_id in self._grid.push_messages(messages)]

    def pull(self, message_ids: Iterable[str]) -> Iterable[Message]:
        ids = list(message_ids)
        for start in range(0, len(ids), AT_ONCE):
            yield from self._pull(ids[start : start + AT_ONCE])

    def _pull(self, ids: list[str]) -> Iterable[Message]:
        """Replies as Flower's own Grid reads them. A malformed reply is logged and skipped."""
        try:
            return list(self._grid.pull_messages(ids))
        except UNREADABLE as error:
            if len(ids) > 1:
                return [message for message_id in ids for message in self._pull([message_id])]
            log.warning("a reply could not be read: %s: %s", type(error).__name__, plain(error))
            return []  # its client will miss the deadline

    def wait(self, seconds: float) -> None:
        time.sleep(min(seconds, POLL))

    def expect_replies(self, reply_bytes: int) -> None:
        pass  # Flower's SuperLink has no such limit

    def discard(self, message_ids: Iterable[str]) -> None:
        pass  # Flower lets them expire

    def traffic(self, node: int) -> tuple[int, int] | None:
        return None


class DirectLink(PolledLink):
    """A link over a Grid in the SuperLink's own process."""

    def __init__(self, grid: DirectGrid) -> None:
        super().__init__(grid)
        self._direct = grid

    def nodes(self) -> Mapping[int, int]:
        return {node: self._direct.connects(node) for node in self._direct.get_node_ids()}

    def pull(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self._direct.pull_messages(message_ids)

    def wait(self, seconds: float) -> None:
        self._direct.wait(seconds)

    def expect_replies(self, reply_bytes: int) -> None:
        self._direct.limit_replies(max(LEAST_ROOM, ROOM_BYTES // max(1, reply_bytes)), reply_bytes)

    def discard(self, message_ids: Iterable[str]) -> None:
        self._direct.discard(message_ids)

    def traffic(self, node: int) -> tuple[int, int] | None:
        return self._direct.traffic(node)
