"""The server's log: what happens to its clients, and what Flower says about it."""

from __future__ import annotations

import logging
from pathlib import Path

from fedopt.text import LONGEST, plain

LOGGERS = ("fedopt", "flwr", "grpc")


class OneLine(logging.Formatter):
    """Escapes what clients may have put into a message. Flower and gRPC log what they were sent, and tracebacks of
    it; of theirs a line of limited length is kept."""

    def format(self, record: logging.LogRecord) -> str:
        record = logging.makeLogRecord(record.__dict__)
        ours = record.name.startswith("fedopt")
        record.msg, record.args = plain(record.getMessage(), LONGEST if not ours else 20 * LONGEST), None
        if not ours and record.exc_info:
            record.msg += f" ({record.exc_info[0].__name__ if record.exc_info[0] else 'no exception'})"
            record.exc_info = record.exc_text = None
        return super().format(record)


def log_to(file: Path) -> None:
    """From here on the log goes to `file`, and Flower's to the terminal no more: its users read our lines there."""
    handler = logging.FileHandler(file)
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(message)s"))
    for name in LOGGERS:
        logger = logging.getLogger(name)
        for older in list(logger.handlers):
            logger.removeHandler(older)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
