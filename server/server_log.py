"""The server's log file: events of its clients, why the server ended, and Flower's own log."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedopt.errors import FedoptError
from fedopt.runs.history import RoundRecord
from fedopt.text import LONGEST, plain

LOGGERS = ("fedopt", "flwr", "grpc")

log = logging.getLogger("fedopt")


class OneLine(logging.Formatter):
    """Writes each record as one line and escapes what clients may have put into it.

    Flower and gRPC log data from clients, with tracebacks; their records are cut to a limited length.
    """

    def format(self, record: logging.LogRecord) -> str:
        record = logging.makeLogRecord(record.__dict__)
        ours = record.name.startswith("fedopt")
        record.msg, record.args = plain(record.getMessage(), LONGEST if not ours else 20 * LONGEST), None
        if not ours and record.exc_info:
            record.msg += f" ({record.exc_info[0].__name__ if record.exc_info[0] else 'no exception'})"
            record.exc_info = record.exc_text = None
        return super().format(record)


def _no_line_per_reply(record: logging.LogRecord) -> bool:
    """A filter without Flower's line for every reply, which would fill the log."""
    return not (record.name == "flwr" and str(record.msg).startswith("[Fleet.PushMessages]"))


class LogFile(logging.FileHandler):
    """A log file whose disk may fill up: this is reported once, and the server continues without it."""

    _broken = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._broken:
            self._broken = True
            print(f"fedopt: {self.baseFilename} cannot be written: {error.strerror}", file=sys.stderr)

    def close(self) -> None:
        try:
            super().close()  # flushes, which may fail again
        except OSError:
            self._broken = True


class LeftOut:
    """Logs each client that was left out of a round (failed, refused or late). An observer of a run."""

    def started(self, directory: Path, rounds_done: int, rounds: int) -> None:
        log.info("rounds %s to %s", rounds_done + 1, rounds)

    def round_done(self, record: RoundRecord) -> None:
        for client, reason in record.left_out.items():
            log.warning("round %s: without client %s: %s", record.round, client, reason)

    def ended(self) -> None:
        pass


@contextmanager
def journal(file: Path) -> Iterator[None]:
    """Logs to `file` within the block. The last entry says how the block ended, with the traceback of a crash."""
    log_to(file)
    try:
        yield
    except KeyboardInterrupt:
        log.warning("stopped by Ctrl-C")
        raise
    except FedoptError as error:
        log.error("ended: %s", error)
        raise
    except Exception as error:
        log.critical("crashed: %s: %s", type(error).__name__, error, exc_info=error)
        raise
    log.info("ended: the run is complete")


def log_to(file: Path) -> None:
    """Sends the log to `file`, and Flower's log away from the terminal, which shows only our own lines."""
    handler = LogFile(file)
    handler.addFilter(_no_line_per_reply)
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(message)s"))
    for name in LOGGERS:
        logger = logging.getLogger(name)
        for older in list(logger.handlers):
            logger.removeHandler(older)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
