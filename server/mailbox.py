"""What the Fleet API's servicer and the Grid over the same state tell each other: who has mail, which replies are
whole, who is gone, and how many bytes have travelled."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from server.limits import ReplyLimit

STALLED = 60.0
"""Seconds without a new object after which an upload gives up its slot, if others wait for one."""


@dataclass
class Reply:
    """The one answer to an order, on its way."""

    node: int
    message_id: str
    left: int
    """Bytes that its objects may still have."""
    session: str = ""
    missing: set[str] = field(default_factory=set)
    whole: bool = False
    refused: str = ""
    """Why it is not taken, if it is not."""
    moved: float = field(default_factory=time.monotonic)
    """When something of it came last."""


class Post:
    """Shared by the server's threads; one lock, and a condition for whoever waits."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._news = 0
        self._news_came = threading.Condition(self._lock)
        self._mail: dict[int, deque[str]] = defaultdict(deque)
        self._doors: dict[int, threading.Condition] = defaultdict(lambda: threading.Condition(self._lock))
        self._arrivals: dict[int, int] = defaultdict(int)
        self._slots = 1
        self._holding: set[str] = set()
        self._room = threading.Condition(self._lock)
        self._limit = ReplyLimit.of(0)
        self._replies: dict[str, Reply] = {}
        self._order_of: dict[str, str] = {}
        self._whole: list[str] = []
        self._objects: dict[int, dict[str, frozenset[str]]] = defaultdict(dict)
        self._traffic: dict[int, tuple[int, int]] = defaultdict(lambda: (0, 0))

    # Mail for nodes

    def post(self, node: int, message_id: str) -> None:
        """There is a message for the node."""
        with self._lock:
            self._mail[node].append(message_id)
            self._doors[node].notify_all()

    def knock(self, node: int) -> None:
        """Whoever waits for this node's mail should look whether to go on waiting."""
        with self._lock:
            self._doors[node].notify_all()

    def take_mail(self, node: int) -> str | None:
        """The node's next message, which is told once."""
        with self._lock:
            return self._mail[node].popleft() if self._mail[node] else None

    def await_mail(self, node: int, until: float, wanted: Callable[[], bool]) -> None:
        """Until the node has mail, the time comes, or the answer is wanted no more."""
        with self._lock:
            while not self._mail[node] and wanted() and (left := until - time.monotonic()) > 0:
                self._doors[node].wait(left)

    # News for the Grid

    def arrived(self, node: int) -> None:
        """The node has come on line, perhaps not for the first time."""
        with self._lock:
            self._arrivals[node] += 1
            self.wake()

    def arrivals(self, node: int) -> int:
        """How often the node has come on line: an answer that is due from before will not come for certain."""
        with self._lock:
            return self._arrivals[node]

    def wake(self) -> None:
        """Something has changed that the Grid's side should look at."""
        with self._lock:
            self._news += 1
            self._news_came.notify_all()

    def await_news(self, seen: int, seconds: float) -> int:
        """Until there is more news than `seen`, or the time is over; how much there is by then."""
        until = time.monotonic() + seconds
        with self._lock:
            while self._news == seen and (left := until - time.monotonic()) > 0:
                self._news_came.wait(left)
            return self._news

    # What a node may fetch

    def offered(self, node: int, message_id: str, objects: frozenset[str]) -> None:
        """The message has been announced to the node, in these objects."""
        with self._lock:
            self._objects[node][message_id] = objects

    def may_fetch(self, node: int, object_id: str) -> bool:
        with self._lock:
            return any(object_id in objects for objects in self._objects.get(node, {}).values())

    def fetched(self, node: int, message_id: str) -> None:
        """The node has all of the message, or should not have it any more."""
        with self._lock:
            self._objects.get(node, {}).pop(message_id, None)

    # Replies, one to an order, which are announced first and then uploaded object by object

    def claim(self, order: str, node: int, message_id: str, limit: int) -> bool:
        """Whether this message may be the answer to the order: it is the first, or the first once more."""
        with self._lock:
            reply = self._replies.get(order)
            if reply is None:
                self._replies[order] = Reply(node, message_id, limit)
                return True
            return reply.message_id == message_id and bool(reply.session) and not reply.whole

    def announced(self, order: str, session: str, objects: set[str]) -> None:
        """The claimed reply is stored, but for these objects."""
        with self._lock:
            reply = self._replies.get(order)
            if reply is None or reply.refused:
                return  # discarded meanwhile
            self._order_of.pop(reply.session, None)
            reply.session, reply.missing = session, set(objects)
            self._order_of[session] = order
            self._look_whether_whole(order, reply)

    def wants(self, node: int) -> bool:
        """Whether objects of a reply of this node's are missing."""
        with self._lock:
            return any(reply.node == node and reply.missing for reply in self._replies.values())

    def takes(self, node: int, session: str, object_id: str, size: int) -> str | None:
        """The order whose reply needs this object; None where none of this node's does.

        A reply that would grow beyond its limit is refused.
        """
        with self._lock:
            order = self._order_of.get(session) or self._order_that_lacks(node, object_id)
            reply = self._replies.get(order) if order is not None else None
            if order is None or reply is None or reply.node != node or object_id not in reply.missing:
                return None
            if size > reply.left:
                self.refuse(order, "it is larger than an update of this model")
                return None
            return order

    def lacks(self, order: str, object_id: str) -> bool:
        """Whether the order's reply still misses the object."""
        with self._lock:
            reply = self._replies.get(order)
            return reply is not None and object_id in reply.missing

    def _order_that_lacks(self, node: int, object_id: str) -> str | None:
        """For nodes that do not say to which session an object belongs."""
        return next(
            (order for order, reply in self._replies.items() if reply.node == node and object_id in reply.missing), None
        )

    def uploaded(self, order: str, object_id: str, size: int) -> None:
        """The object is stored."""
        with self._lock:
            reply = self._replies.get(order)
            if reply is not None and object_id in reply.missing:
                reply.missing.discard(object_id)
                reply.left -= size
                reply.moved = time.monotonic()
                self._look_whether_whole(order, reply)

    def _look_whether_whole(self, order: str, reply: Reply) -> None:
        if not reply.missing and not reply.whole:
            reply.whole = True
            self._whole.append(order)
            self.wake()

    def refuse(self, order: str, reason: str) -> None:
        """The answer to this order is not taken; `reason` is a clause about it."""
        with self._lock:
            reply = self._replies.get(order)
            if reply is not None and not reply.whole:
                reply.refused, reply.whole = reason, True
                reply.missing.clear()
                self._whole.append(order)
                self.wake()

    def refuse_of(self, node: int, reason: str) -> None:
        """The node's answers that are on their way are not taken."""
        with self._lock:
            for order, reply in list(self._replies.items()):
                if reply.node == node and reply.missing:
                    self.refuse(order, reason)

    def refusal(self, order: str) -> str:
        """Why its answer was refused; "" if it was not."""
        with self._lock:
            reply = self._replies.get(order)
            return reply.refused if reply is not None else ""

    def take_whole(self, orders: set[str]) -> list[str]:
        """Those of `orders` whose replies are whole or refused, each named once, in the order of arrival."""
        with self._lock:
            taken = [order for order in self._whole if order in orders]
            self._whole = [order for order in self._whole if order not in orders]
            return taken

    def dealt_with(self, order: str) -> None:
        """Nothing of an answer to this order is on the server any more, and none is wanted."""
        with self._lock:
            reply = self._replies.pop(order, None)
            if reply is not None:
                self._order_of.pop(reply.session, None)
            self._whole = [other for other in self._whole if other != order]
            self._give_back_slot(order)

    # Room for replies, so that a server which sums them one by one need not hold them all

    def make_room(self, slots: int, limit: ReplyLimit) -> None:
        """So many answers to orders may be on the server at once, each within `limit`; others wait with their nodes."""
        with self._lock:
            self._slots, self._limit = slots, limit
            self._room.notify_all()

    @property
    def limit(self) -> ReplyLimit:
        """Of an answer that brings vectors."""
        with self._lock:
            return self._limit

    def await_room(self, order: str, wanted: Callable[[], bool]) -> bool:
        """Until an answer to this order may come up: True, and it has a slot; False if it is wanted no more."""
        with self._lock:
            while wanted():
                if order in self._holding or len(self._holding) < self._slots:
                    self._holding.add(order)
                    return True
                self._drop_stalled()
                self._room.wait(1.0)
            return False

    def _drop_stalled(self) -> None:
        now = time.monotonic()
        for order in list(self._holding):
            reply = self._replies.get(order)
            if reply is not None and reply.missing and now - reply.moved > STALLED:
                self.refuse(order, f"its upload stood still for {STALLED:g} s")

    def _give_back_slot(self, order: str) -> None:
        if order in self._holding:
            self._holding.remove(order)
            self._room.notify()

    # Traffic

    def count(self, node: int, down: int, up: int) -> None:
        with self._lock:
            before = self._traffic[node]
            self._traffic[node] = (before[0] + down, before[1] + up)

    def traffic(self, node: int) -> tuple[int, int]:
        """Bytes of the node's calls so far, to it and from it."""
        with self._lock:
            return self._traffic[node]
