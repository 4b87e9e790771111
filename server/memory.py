"""What the allocator does with large blocks that have been freed."""

from __future__ import annotations

import ctypes
import sys

M_MMAP_THRESHOLD = -3
"""From glibc's malloc.h."""

LARGE = 2**20


def return_large_blocks() -> None:
    """Has blocks from 1 MB given back to the system when they are freed.

    glibc raises that limit with the first large block it sees freed and keeps later ones in the heap of the thread
    that asked for them; over the threads of a gRPC server that adds up (measured: three times the memory, growing
    with the cohort). Where the C library is another one, nothing is changed.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(ctypes.c_int(M_MMAP_THRESHOLD), ctypes.c_int(LARGE))
