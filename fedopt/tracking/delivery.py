"""Hands rounds to a tracker in a thread of its own, so that a slow or absent tracker does not delay the run."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

log = logging.getLogger("fedopt.tracking")

PAUSE = 1.0
"""Seconds between two deliveries: several short rounds are sent together."""

MOST = 500
"""The most rounds of one delivery."""

LONGEST_PAUSE = 60.0
"""Seconds to wait after repeated failures. The pause starts at PAUSE and doubles."""


@dataclass(frozen=True)
class Point:
    """The numbers of one round."""

    round: int
    numbers: dict[str, float]


class Delivery:
    """Sends points in their order; what could not be sent is sent again later.

    A tracker may fail in any way its package or the network can. The first failure is logged as a warning, once, and
    the run goes on: all its numbers are in metrics.jsonl.
    """

    def __init__(self, tracker: str, send: Callable[[Sequence[Point]], None]) -> None:
        self._tracker, self._send = tracker, send
        self._waiting: deque[Point] = deque()
        self._wake = threading.Condition()
        self._flushes_wanted = self._flushes_done = 0
        self._ended, self._failing = False, False
        self._thread = threading.Thread(target=self._work, name=f"tracking with {tracker}", daemon=True)
        self._thread.start()

    def put(self, point: Point) -> None:
        with self._wake:
            self._waiting.append(point)
            self._wake.notify_all()

    def flush(self) -> list[int]:
        """Waits until everything is sent, or until another attempt has failed; returns the rounds that are missing."""
        with self._wake:
            self._flushes_wanted += 1
            wanted = self._flushes_wanted
            self._wake.notify_all()
            while self._flushes_done < wanted:
                self._wake.wait()
            return [point.round for point in self._waiting]

    def close(self) -> None:
        with self._wake:
            self._ended = True
            self._wake.notify_all()
        self._thread.join()

    def _work(self) -> None:
        pause, next_time = PAUSE, 0.0
        while True:
            with self._wake:
                while not self._is_due(next_time):
                    self._wake.wait(max(next_time - time.monotonic(), 0.01) if self._waiting else None)
                if self._ended:
                    return
                flush = self._flushes_wanted
            sent = self._deliver()
            pause = PAUSE if sent else min(2 * pause, LONGEST_PAUSE)
            next_time = time.monotonic() + pause
            with self._wake:
                if not (sent and self._waiting and flush > self._flushes_done):  # else the flush goes on
                    self._flushes_done = max(self._flushes_done, flush)
                    self._wake.notify_all()

    def _is_due(self, next_time: float) -> bool:
        if self._ended or self._flushes_wanted > self._flushes_done:
            return True
        return bool(self._waiting) and time.monotonic() >= next_time

    def _deliver(self) -> bool:
        """Sends what waits, at most MOST rounds. Whether that worked."""
        with self._wake:
            batch = [self._waiting[index] for index in range(min(MOST, len(self._waiting)))]
        if not batch:
            return True
        try:
            self._send(batch)
        except Exception as error:  # whatever the tracker's package may raise
            if not self._failing:
                log.warning(
                    "%s: round %s could not be logged (%s: %s); the run goes on, and the rounds that are missing "
                    "are sent again later",
                    self._tracker,
                    batch[0].round,
                    type(error).__name__,
                    error,
                )
            self._failing = True
            return False
        if self._failing:
            log.warning("%s: works again", self._tracker)
            self._failing = False
        with self._wake:
            for _ in batch:
                self._waiting.popleft()
        return True
