"""How many threads torch gets for an analysis."""

from __future__ import annotations

import torch

SMALL = 10_000_000
"""Numbers of an operation, parameters times samples or clients, up to which it is left to one thread."""


def threads_for(parameters: int, rows: int) -> int:
    """Threads of an operation: where it is small they would wait for each other, and for long where other programs
    run."""
    return 1 if parameters * rows < SMALL else torch.get_num_threads()
