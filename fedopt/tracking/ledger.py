"""tracking.json in a run's directory: which tracker has which of its rounds, and under which id."""

from __future__ import annotations

import threading
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from fedopt.errors import BrokenRun
from fedopt.storage.files import replace_file

FILE = "tracking.json"


class Entry(BaseModel):
    """What is known of one tracker."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    """The tracker's own id of the run."""
    where: str
    """Where the tracker stores it: a folder, a URI, a project."""
    round: int = 0
    """The tracker has the rounds up to this one."""


_ENTRIES = TypeAdapter(dict[str, Entry])


class Ledger:
    """The file tracking.json. Several trackers of one process may share it."""

    _lock = threading.Lock()

    def __init__(self, directory: Path) -> None:
        self._file = directory / FILE

    def read(self, tracker: str) -> Entry | None:
        """None if this tracker has not followed the run yet; BrokenRun if the file was edited."""
        return self._entries().get(tracker)

    def write(self, tracker: str, entry: Entry) -> None:
        with self._lock:
            entries = self._entries() | {tracker: entry}
            replace_file(self._file, _ENTRIES.dump_json(entries, indent=2) + b"\n")

    def _entries(self) -> dict[str, Entry]:
        try:
            return _ENTRIES.validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return {}
        except ValidationError as error:
            raise BrokenRun(
                f"{self._file} is torn or was edited; delete it to let trackers begin again with a new run"
            ) from error
