"""Vectors that several processes see: in shared memory, or in a file of their own where they are too many for it.

Pages take room only once they are written, so rows may be laid out for every client there could be. The file has no
name: it is gone with the last process that maps it, however that ends.
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
"""The part of the machine's memory that such vectors may fill before they go to the disk."""


def shared_rows(rows: int, like: Tensor, share: float | None = None) -> Tensor:
    """Zeros [rows, P] that a process forked from here shares; on the disk if they are more than `share` of memory."""
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
