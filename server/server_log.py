"""The server's log file: events of its clients, why the server ended, and Flower's own log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedopt.errors import FedoptError
from fedopt.logs import SHOWN, log_to

log = logging.getLogger("fedopt")


@contextmanager
def journal(file: Path) -> Iterator[None]:
    """Logs to `file` within the block. The last entry says how the block ended, with the traceback of a crash."""
    log_to(file)
    try:
        yield
    except KeyboardInterrupt:
        log.warning("stopped by Ctrl-C", extra=SHOWN)
        raise
    except FedoptError as error:
        log.error("ended: %s", error, extra=SHOWN)
        raise
    except Exception as error:
        log.critical("crashed: %s: %s", type(error).__name__, error, exc_info=error, extra=SHOWN)
        raise
    log.info("ended: the run is complete")
