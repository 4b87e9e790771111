"""Records and experiments as flat names with values, as trackers take them."""

from __future__ import annotations

import json
import math

from pydantic import BaseModel

from fedopt.experiment.experiment import Experiment
from fedopt.experiment.file import as_sections


def numbers(record: BaseModel, prefix: str = "") -> dict[str, float]:
    """Every finite number of a record by its path, for example drift/ratio for `drift.ratio`.

    Trackers group their charts by the part before the slash. Lists, such as accuracies by class, are left out.
    """
    found: dict[str, float] = {}
    for name in type(record).model_fields:
        value = getattr(record, name)
        if isinstance(value, BaseModel):
            found |= numbers(value, f"{prefix}{name}/")
        elif isinstance(value, dict):
            for key, inner in value.items():
                if isinstance(inner, BaseModel):
                    found |= numbers(inner, f"{prefix}{name}/{key}/")
                elif isinstance(inner, float) and math.isfinite(inner):
                    found[f"{prefix}{name}/{key}"] = inner
        elif isinstance(value, int | float) and name != "round" and math.isfinite(value):
            found[prefix + name] = float(value)
    return found


def parameters(experiment: Experiment) -> dict[str, str | int | float | bool]:
    """Every setting by its key, for example algorithm.name; a list or a table is written as JSON."""
    return {
        f"{section}.{key}": value if isinstance(value, str | int | float | bool) else json.dumps(value)
        for section, settings in as_sections(experiment).items()
        for key, value in settings.items()
    }
