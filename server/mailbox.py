"""What the Fleet API's servicer and the Grid share besides Flower's link state: waiting messages for each node, which
replies are complete, which nodes have connected, and how many bytes have travelled."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from server.limits import ReplyLimit

STALLED = 60.0
"""Seconds without a new object after which an upload loses its slot, if others wait for one."""


@dataclass
class Reply:
    """The one reply to an order, while it is uploaded."""

    node: int
    message_id: str
    left: int
    """Bytes that its remaining objects may have in total."""
    session: str = ""
    missing: set[str] = field(default_factory=set)
    complete: bool = False
    refused: str = ""
    """Why it is refused; "" if it is not."""
    moved: float = field(default_factory=time.monotonic)
    """When its last object arrived."""


class Mailbox:
    """Shared by the server's threads: one lock, and a condition for each kind of waiting."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._changes = 0
        self._changed = threading.Condition(self._lock)
        self._mail: dict[int, deque[str]] = defaultdict(deque)
        self._mail_came: dict[int, threading.Condition] = defaultdict(lambda: threading.Condition(self._lock))
        self._connects: dict[int, int] = defaultdict(int)
        self._slots = 1
        self._slot_holders: set[str] = set()
        self._slot_freed = threading.Condition(self._lock)
        self._limit = ReplyLimit.of(0)
        self._replies: dict[str, Reply] = {}
        self._order_of: dict[str, str] = {}
        self._complete: list[str] = []
        self._objects: dict[int, dict[str, frozenset[str]]] = defaultdict(dict)
        self._traffic: dict[int, tuple[int, int]] = defaultdict(lambda: (0, 0))

    # Messages for nodes

    def add_message(self, node: int, message_id: str) -> None:
        """Queues a message for the node."""
        with self._lock:
            self._mail[node].append(message_id)
            self._mail_came[node].notify_all()

    def wake_poll(self, node: int) -> None:
        """Makes a held poll of this node check whether it should go on waiting."""
        with self._lock:
            self._mail_came[node].notify_all()

    def next_message(self, node: int) -> str | None:
        """Removes and returns the id of the node's next message; None if there is none."""
        with self._lock:
            return self._mail[node].popleft() if self._mail[node] else None

    def wait_for_mail(self, node: int, until: float, wanted: Callable[[], bool]) -> None:
        """Waits until the node has a message, until the time `until`, or until `wanted` is false."""
        with self._lock:
            while not self._mail[node] and wanted() and (left := until - time.monotonic()) > 0:
                self._mail_came[node].wait(left)

    # Changes that the Grid waits for

    def node_connected(self, node: int) -> None:
        """The node has come online, for the first time or again."""
        with self._lock:
            self._connects[node] += 1
            self.notify()

    def connects(self, node: int) -> int:
        """How often the node has come online. Replies due from an earlier connection will not arrive."""
        with self._lock:
            return self._connects[node]

    def notify(self) -> None:
        """Something has changed that the Grid should look at."""
        with self._lock:
            self._changes += 1
            self._changed.notify_all()

    def wait_for_change(self, seen: int, seconds: float) -> int:
        """Waits until there are more changes than `seen`, at most `seconds`. Returns the number of changes."""
        until = time.monotonic() + seconds
        with self._lock:
            while self._changes == seen and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            return self._changes

    # Objects that a node may fetch

    def message_offered(self, node: int, message_id: str, objects: frozenset[str]) -> None:
        """The message has been announced to the node with these objects."""
        with self._lock:
            self._objects[node][message_id] = objects

    def may_fetch(self, node: int, object_id: str) -> bool:
        with self._lock:
            return any(object_id in objects for objects in self._objects.get(node, {}).values())

    def message_fetched(self, node: int, message_id: str) -> None:
        """The node has the whole message, or the message was withdrawn."""
        with self._lock:
            self._objects.get(node, {}).pop(message_id, None)

    # Replies, one for each order: announced first, then uploaded object by object

    def claim(self, order: str, node: int, message_id: str, limit: int) -> bool:
        """Whether this message may be the reply to the order: it is the first, or the first announced again."""
        with self._lock:
            reply = self._replies.get(order)
            if reply is None:
                self._replies[order] = Reply(node, message_id, limit)
                return True
            return reply.message_id == message_id and bool(reply.session) and not reply.complete

    def reply_announced(self, order: str, session: str, objects: set[str]) -> None:
        """The claimed reply is stored except for these objects."""
        with self._lock:
            reply = self._replies.get(order)
            if reply is None or reply.refused:
                return  # discarded in the meantime
            self._order_of.pop(reply.session, None)
            reply.session, reply.missing = session, set(objects)
            self._order_of[session] = order
            self._complete_if_whole(order, reply)

    def expects_objects(self, node: int) -> bool:
        """Whether objects of one of this node's replies are missing."""
        with self._lock:
            return any(reply.node == node and reply.missing for reply in self._replies.values())

    def order_of_object(self, node: int, session: str, object_id: str, size: int) -> str | None:
        """The order whose reply needs this object; None if no reply of this node needs it.

        A reply that would exceed its limit is refused.
        """
        with self._lock:
            order = self._order_of.get(session) or self._order_missing(node, object_id)
            reply = self._replies.get(order) if order is not None else None
            if order is None or reply is None or reply.node != node or object_id not in reply.missing:
                return None
            if size > reply.left:
                self.refuse(order, "it is larger than an update of this model")
                return None
            return order

    def misses_object(self, order: str, object_id: str) -> bool:
        """Whether the object is missing from the reply to this order."""
        with self._lock:
            reply = self._replies.get(order)
            return reply is not None and object_id in reply.missing

    def _order_missing(self, node: int, object_id: str) -> str | None:
        """The order whose reply needs the object, for nodes that do not name the session."""
        return next(
            (order for order, reply in self._replies.items() if reply.node == node and object_id in reply.missing), None
        )

    def object_uploaded(self, order: str, object_id: str, size: int) -> None:
        """The object is stored."""
        with self._lock:
            reply = self._replies.get(order)
            if reply is not None and object_id in reply.missing:
                reply.missing.discard(object_id)
                reply.left -= size
                reply.moved = time.monotonic()
                self._complete_if_whole(order, reply)

    def _complete_if_whole(self, order: str, reply: Reply) -> None:
        if not reply.missing and not reply.complete:
            reply.complete = True
            self._complete.append(order)
            self.notify()

    def refuse(self, order: str, reason: str) -> None:
        """Refuses the reply to this order; `reason` is a clause about the reply."""
        with self._lock:
            reply = self._replies.get(order)
            if reply is not None and not reply.complete:
                reply.refused, reply.complete = reason, True
                reply.missing.clear()
                self._complete.append(order)
                self.notify()

    def refuse_from(self, node: int, reason: str) -> None:
        """Refuses the node's replies that are being uploaded."""
        with self._lock:
            for order, reply in list(self._replies.items()):
                if reply.node == node and reply.missing:
                    self.refuse(order, reason)

    def refusal(self, order: str) -> str:
        """Why its reply was refused; "" if it was not."""
        with self._lock:
            reply = self._replies.get(order)
            return reply.refused if reply is not None else ""

    def take_complete(self, orders: set[str]) -> list[str]:
        """Those of `orders` whose replies are complete or refused, in order of arrival. Each is returned once."""
        with self._lock:
            taken = [order for order in self._complete if order in orders]
            self._complete = [order for order in self._complete if order not in orders]
            return taken

    def forget(self, order: str) -> None:
        """Forgets the order and its reply, and releases its slot."""
        with self._lock:
            reply = self._replies.pop(order, None)
            if reply is not None:
                self._order_of.pop(reply.session, None)
            self._complete = [other for other in self._complete if other != order]
            self._release_slot(order)

    # Slots for replies: the server sums them one by one, so it need not hold all of them at once

    def limit_replies(self, slots: int, limit: ReplyLimit) -> None:
        """Allows `slots` replies to orders on the server at once, each within `limit`. Others wait at their nodes."""
        with self._lock:
            self._slots, self._limit = slots, limit
            self._slot_freed.notify_all()

    @property
    def limit(self) -> ReplyLimit:
        """The limit of a reply with vectors."""
        with self._lock:
            return self._limit

    def acquire_slot(self, order: str, wanted: Callable[[], bool]) -> bool:
        """Waits for a slot for the reply to this order. False if `wanted` became false first."""
        with self._lock:
            while wanted():
                if order in self._slot_holders or len(self._slot_holders) < self._slots:
                    self._slot_holders.add(order)
                    return True
                self._refuse_stalled()
                self._slot_freed.wait(1.0)
            return False

    def _refuse_stalled(self) -> None:
        now = time.monotonic()
        for order in list(self._slot_holders):
            reply = self._replies.get(order)
            if reply is not None and reply.missing and now - reply.moved > STALLED:
                self.refuse(order, f"its upload stood still for {STALLED:g} s")

    def _release_slot(self, order: str) -> None:
        if order in self._slot_holders:
            self._slot_holders.remove(order)
            self._slot_freed.notify()

    # Traffic

    def count(self, node: int, down: int, up: int) -> None:
        with self._lock:
            before = self._traffic[node]
            self._traffic[node] = (before[0] + down, before[1] + up)

    def traffic(self, node: int) -> tuple[int, int]:
        """Bytes sent to the node and received from it so far."""
        with self._lock:
            return self._traffic[node]
