"""The logger "fedopt": what a command shows of it on the terminal, and its log file."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from fedopt.text import LONGEST, plain

if TYPE_CHECKING:
    from rich.console import Console

LOGGERS = ("fedopt", "flwr", "grpc")
"""The loggers that go into a log file."""

SHOWN = {"shown": True}
"""`extra` of a record whose text the command prints itself: the terminal does not show it again."""

SERVER = "fedopt.server"
"""Its records may quote clients, who could fill a terminal: they go to log files, and to the terminal with -v."""


def log_notes(notes: Iterable[str]) -> None:
    """Warnings about an experiment that Python code runs: Python prints them on stderr unless logging is set up."""
    for note in notes:
        logging.getLogger("fedopt").warning("note: %s", note)


class OneLine(logging.Formatter):
    """Writes each record as one line and escapes what clients may have put into it.

    Flower and gRPC log data from clients, with tracebacks; their records are cut to a limited length.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        record = logging.makeLogRecord(record.__dict__)
        ours = record.name.startswith("fedopt")
        record.msg, record.args = plain(record.getMessage(), LONGEST if not ours else 20 * LONGEST), None
        if not ours and record.exc_info:
            record.msg += f" ({record.exc_info[0].__name__ if record.exc_info[0] else 'no exception'})"
            record.exc_info = record.exc_text = None
        return super().format(record)


class LogFile(logging.FileHandler):
    """A log file whose disk may fill up: this is reported once, and the command continues without it."""

    _broken = False

    def __init__(self, file: Path) -> None:
        super().__init__(file, encoding="utf-8")
        self.addFilter(_no_line_per_reply)
        self.setFormatter(OneLine())

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


class Terminal(logging.Handler):
    """Prints records of ours on a console, above a progress bar if there is one."""

    def __init__(self, console: Console, verbosity: int, quiet: bool) -> None:
        super().__init__(logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbosity, 2)])
        self._console, self._shows_server = console, verbosity > 0

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "shown", False) or (record.name.startswith(SERVER) and not self._shows_server):
            return
        text = plain(record.getMessage(), 20 * LONGEST)
        is_notice = record.levelno < logging.WARNING
        line = text if is_notice else f"{record.levelname.lower()}: {text}"
        style = "dim" if is_notice else "yellow" if record.levelno == logging.WARNING else "red"
        self._console.print(line, style=style, highlight=False, soft_wrap=True, markup=False)


def set_up_logging(console: Console, verbosity: int = 0, quiet: bool = False, file: Path | None = None) -> None:
    """Shows warnings on the console; with a verbosity of 1 what happens, with 2 each round; if `quiet`, errors only.

    `file` gets everything, with what Flower and gRPC log. OSError if it cannot be opened.
    """
    terminal = Terminal(console, verbosity, quiet)
    _replace("fedopt", terminal, logging.DEBUG if file is not None else terminal.level)
    if file is not None:
        handler = LogFile(file)
        for name in LOGGERS:
            logger = logging.getLogger(name)
            logger.addHandler(handler)
            logger.setLevel(logging.DEBUG if name == "fedopt" else logging.INFO)
        _ours.append(handler)


def is_watched() -> bool:
    """Whether standard error is a terminal that can redraw a line, and no log of a CI service."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not os.environ.get("CI")


def log_to(file: Path) -> None:
    """Also sends the log, from INFO on, to `file`, and Flower's own log away from the terminal."""
    handler = LogFile(file)
    handler.setLevel(logging.INFO)
    for name in LOGGERS:
        logger = logging.getLogger(name)
        for older in list(logger.handlers):
            if older not in _ours:
                logger.removeHandler(older)
        logger.addHandler(handler)
        logger.setLevel(min(logger.level or logging.INFO, logging.INFO))
        logger.propagate = False


_ours: list[logging.Handler] = []
"""The handlers of `set_up_logging`, which `log_to` leaves in place."""


def _replace(name: str, handler: logging.Handler, level: int) -> None:
    logger = logging.getLogger(name)
    for older in _ours:
        for each in LOGGERS:
            logging.getLogger(each).removeHandler(older)
        older.close()
    _ours[:] = [handler]
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False


def _no_line_per_reply(record: logging.LogRecord) -> bool:
    """A filter without Flower's line for every reply, which would fill the log."""
    return not (record.name == "flwr" and str(record.msg).startswith("[Fleet.PushMessages]"))
