"""The server's log: what happens to its clients, and what Flower says about it."""

from __future__ import annotations

import logging
from pathlib import Path

LOGGERS = ("fedopt", "flwr")


def log_to(file: Path) -> None:
    """From here on the log goes to `file`, and Flower's to the terminal no more: its users read our lines there."""
    handler = logging.FileHandler(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name in LOGGERS:
        logger = logging.getLogger(name)
        for older in list(logger.handlers):
            logger.removeHandler(older)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
