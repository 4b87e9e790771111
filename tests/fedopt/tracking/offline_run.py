"""Reads a W&B offline file: the log format of LevelDB with a header of its own, holding protocol buffers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, HEADER = 32768, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def complete_records(file: Path) -> list[Any]:
    """The `Record` messages of the file, in order. W&B's own process may still write it when the run has finished."""
    give_up = time.monotonic() + 120
    while True:
        records = list(offline_records(file))
        if any(record.HasField("exit") for record in records):
            return records
        assert time.monotonic() < give_up
        time.sleep(0.05)


def offline_records(file: Path) -> Iterator[Any]:
    """The messages that the file holds by now."""
    from wandb.proto import wandb_internal_pb2 as messages

    record: Any = getattr(messages, "Record")  # noqa: B009 (made at run time, so that its type is unknown)

    data = file.read_bytes()
    assert data[:4] == b":W&B"
    at, begun = HEADER, b""
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:  # a block's end that is too short for a header is filled with zeros
            at += BLOCK - at % BLOCK
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        begun += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (FULL, LAST):
            yield record.FromString(begun)
            begun = b""
        else:
            assert kind in (FIRST, MIDDLE)
