"""A run's metrics as TensorBoard event files, in the folder tensorboard/ of its directory."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from fedopt.errors import InvalidExperiment
from fedopt.runs.history import RoundRecord


class TensorBoard:
    """Writes a scalar for each number of each round. Implements `fedopt.runs.runner.Observer`."""

    def __init__(self) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise InvalidExperiment(
                "--tensorboard: TensorBoard is not installed; get it with pip install 'fedopt[tensorboard]'"
            )
        self._writer: Any = None

    def started(self, directory: Path, rounds_done: int, rounds: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # A killed run may have written rounds that are now run again: purge_step discards them.
        self._writer = SummaryWriter(str(directory / "tensorboard"), purge_step=rounds_done + 1)

    def round_done(self, record: RoundRecord) -> None:
        for name, value in numbers(record).items():
            self._writer.add_scalar(name, value, record.round)

    def ended(self) -> None:
        if self._writer is not None:
            self._writer.close()


def numbers(record: BaseModel, prefix: str = "") -> dict[str, float]:
    """Every number of a record by its path, for example drift/ratio; TensorBoard groups them by the part before /."""
    found: dict[str, float] = {}
    for name in type(record).model_fields:
        value = getattr(record, name)
        if isinstance(value, BaseModel):
            found |= numbers(value, f"{prefix}{name}/")
        elif isinstance(value, dict):
            for key, inner in value.items():
                if isinstance(inner, BaseModel):
                    found |= numbers(inner, f"{prefix}{name}/{key}/")
                elif isinstance(inner, float):
                    found[f"{prefix}{name}/{key}"] = inner
        elif isinstance(value, int | float) and name != "round":
            found[prefix + name] = float(value)
    return found
