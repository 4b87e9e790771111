"""Reports refusals without filling the log when a client is refused a million times."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

KINDS = 1000
"""Kinds of refusals that are counted separately."""


class RefusalLog:
    """Reports the first refusal of a kind, and then the 10th, the 100th and so on."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report, self._lock = report, threading.Lock()
        self._counts: Counter[str] = Counter()

    def add(self, kind: str, sentence: str) -> None:
        with self._lock:
            if kind not in self._counts and len(self._counts) >= KINDS:
                kind = "others"
            self._counts[kind] += 1
            count = self._counts[kind]
        if count == 1:
            self._report(sentence)
        elif str(count).rstrip("0") == "1":
            self._report(f"{sentence} ({count} times by now)")
