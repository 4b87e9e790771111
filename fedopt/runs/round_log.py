"""A run in the log: its rounds, and the clients that they went on without."""

from __future__ import annotations

import logging
from pathlib import Path

from fedopt.logs import SHOWN
from fedopt.runs.history import RoundRecord

log = logging.getLogger("fedopt")


class RoundLog:
    """Logs each client that was left out of a round (failed, refused or late) as a warning, each round for debugging.

    An observer of a run.
    """

    def started(self, directory: Path, rounds_done: int, rounds: int) -> None:
        log.info("rounds %s to %s, in %s", rounds_done + 1, rounds, directory)

    def note(self, sentence: str) -> None:
        log.info("%s", sentence, extra=SHOWN)  # a progress display prints it

    def round_done(self, record: RoundRecord) -> None:
        for client, reason in record.left_out.items():
            log.warning("round %s: without client %s: %s", record.round, client, reason)
        accuracy = "" if record.test_accuracy is None else f", test accuracy {record.test_accuracy:.2%}"
        log.debug("round %s: training loss %.4f%s, %.3f s", record.round, record.train_loss, accuracy, record.seconds)

    def ended(self) -> None:
        pass
