"""A run in the log: its rounds, and the clients that they went on without."""

from __future__ import annotations

import logging
from collections import deque
from pathlib import Path
from statistics import median

from fedopt.logs import SHOWN
from fedopt.runs.history import RoundRecord
from fedopt.runs.quality import quality

log = logging.getLogger("fedopt")


LONG = 4.0
"""Times the usual length of an update from which on a client seems to run away. Without a runaway, 3.5 was seen."""
REMEMBERED = 100
"""Rounds that say what is usual."""
FEWEST = 2
"""Rounds before anything is usual."""


class RoundLog:
    """Logs each client that was left out of a round (failed, refused or late), and one that seems to run away, as a
    warning; each round for debugging.

    An observer of a run.
    """

    def __init__(self) -> None:
        self._lengths = deque[float](maxlen=REMEMBERED)
        self._warned = 0.0

    def started(self, directory: Path, rounds_done: int, rounds: int) -> None:
        log.info("rounds %s to %s, in %s", rounds_done + 1, rounds, directory)

    def note(self, sentence: str) -> None:
        log.info("%s", sentence, extra=SHOWN)  # a progress display prints it

    def round_done(self, record: RoundRecord) -> None:
        for client, reason in record.left_out.items():
            log.warning("round %s: without client %s: %s", record.round, client, reason)
        self._warn_of_a_runaway(record)
        found = quality(record)
        found = f", {found}" if found else ""
        log.debug("round %s: training loss %.4f%s, %.3f s", record.round, record.train_loss, found, record.seconds)

    def _warn_of_a_runaway(self, record: RoundRecord) -> None:
        """Warns of an update that is far longer than usual, and again where one is twice as long as the last such."""
        drift = record.drift
        if drift is None or drift.longest is None:
            return
        usual = median(self._lengths) if len(self._lengths) >= FEWEST else 0.0
        self._lengths.append(drift.mean_norm)
        if usual > 0 and drift.longest >= max(LONG * usual, 2 * self._warned):
            self._warned = drift.longest
            log.warning(
                "round %s: client %s may be running away: its update is %.3g long, and %.3g is usual; a smaller "
                "local.lr, fewer local steps, local.clip or, under scaffold, algorithm.anchor = 1 keeps it near",
                record.round,
                drift.longest_client,
                drift.longest,
                usual,
            )

    def ended(self) -> None:
        pass
