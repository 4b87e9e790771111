"""Writing files so that a reader, or a run that was killed, finds the old or the new one and nothing between."""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(file: Path, content: bytes) -> None:
    """Puts `content` in place of the file at once, and on the disk before it counts."""
    draft = file.with_name(f".{file.name}.draft")
    with open(draft, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(draft, file)
