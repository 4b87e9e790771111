"""What several tests need."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from tests.processes import Processes, running_processes

# How long something takes on a shared machine says nothing about it; hypothesis builds its tables of characters first.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")
# Decoded data sets are cached beside pytest's own files, not in the user's folder.
os.environ.setdefault("FEDOPT_CACHE", str(Path(__file__).parents[1] / ".pytest_cache" / "fedopt"))
torch.set_num_threads(1)  # tests run in parallel; more threads than cores would only wait for each other


@pytest.fixture
def shared_data() -> Path:
    """The folder with real data beside the checkout (FEDOPT_DATA names another); skips, visibly, without it."""
    folder = Path(os.environ.get("FEDOPT_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "MNIST" / "raw").is_dir():
        pytest.skip(f"no data at {folder}; set FEDOPT_DATA to a folder that holds MNIST/raw")
    return folder


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Real servers and clients for one test; all end with it."""
    with running_processes(tmp_path) as made:
        yield made
