"""The device that torch computes on, and its number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fedopt.errors import InvalidExperiment


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is the GPU if there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there[name]:
        raise InvalidExperiment(f"run.device: torch finds no {name} on this machine; choose cpu, or auto")
    return torch.device(name)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Sets the number of threads of torch operations, and restores it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
