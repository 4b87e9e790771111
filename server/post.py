"""What the Fleet API's servicer and the Grid over the same state tell each other: who has mail, which replies are
whole, who is gone, and how many bytes have travelled."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable


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
        self._open: dict[str, tuple[str, set[str]]] = {}
        self._whole: list[str] = []
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

    # Replies, which are announced first and then uploaded object by object

    def announced(self, session: str, order: str, objects: set[str]) -> None:
        """A reply to the message `order` is coming, in these objects."""
        with self._lock:
            if objects:
                self._open[session] = (order, objects)
            else:
                self._whole.append(order)
                self.wake()

    def uploaded(self, session: str, object_id: str) -> None:
        with self._lock:
            if session not in self._open:
                return
            order, missing = self._open[session]
            missing.discard(object_id)
            if not missing:
                del self._open[session]
                self._whole.append(order)
                self.wake()

    def take_whole(self, orders: set[str]) -> list[str]:
        """Those of `orders` whose replies are whole, each told once, in the order of arrival."""
        with self._lock:
            taken = [order for order in self._whole if order in orders]
            self._whole = [order for order in self._whole if order not in orders]
            return taken

    # Room for replies, so that a server which sums them one by one need not hold them all

    def make_room(self, slots: int) -> None:
        """So many answers to orders may be on the server at once; others wait with their clients."""
        with self._lock:
            self._slots = slots
            self._room.notify_all()

    def await_room(self, order: str, wanted: Callable[[], bool]) -> None:
        """Until an answer to this order may come up, or is wanted no more."""
        with self._lock:
            while len(self._holding) >= self._slots and order not in self._holding and wanted():
                self._room.wait(1.0)
            self._holding.add(order)

    def dealt_with(self, order: str) -> None:
        """An answer to this order is not on the server any more."""
        with self._lock:
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
