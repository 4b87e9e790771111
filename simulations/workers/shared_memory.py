"""Vectors that several processes share: in memory, or in a file if they are too large.

Pages take memory only when they are written, so there may be rows for every possible client. The file has no name: the
system removes it when the last process ends.
"""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile

import torch
from torch import Tensor

from fedopt.errors import InvalidExperiment

MEMORY_SHARE = 0.25
"""The largest share of the machine's memory for such vectors; larger ones go to disk."""


def shared_rows(rows: int, like: Tensor, share: float | None = None) -> Tensor:
    """Zeros [rows, P] that forked processes share; on disk if they exceed `share` of the memory."""
    size = max(1, rows * like.numel() * like.element_size())
    if size <= (MEMORY_SHARE if share is None else share) * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
        mapped = mmap.mmap(-1, size)
    else:
        mapped = _on_disk(size)
    return torch.frombuffer(mapped, dtype=like.dtype, count=rows * like.numel()).view(rows, like.numel())


def _on_disk(size: int) -> mmap.mmap:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if free < size:
        raise InvalidExperiment(
            f"what the clients keep between rounds takes up to {size / 2**30:.1f} GiB, and {folder} has "
            f"{free / 2**30:.1f} GiB free; set TMPDIR to a folder on a larger disk"
        )
    with tempfile.TemporaryFile(dir=folder) as file:
        file.truncate(size)
        return mmap.mmap(file.fileno(), size)
