"""A changed copy of an experiment: `experiment.replace(run={"rounds": 5})`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedopt.composite import flat_keys
from fedopt.errors import InvalidExperiment
from fedopt.family import Family
from fedopt.registry import UnknownName
from fedopt.section import Section

INSTEAD_OF = {
    "local.steps": "local.epochs",
    "local.epochs": "local.steps",
    "run.cohort": "run.participation",
    "run.participation": "run.cohort",
}
"""A change of one of these displaces what the experiment says by the other."""


def merged(section: str, current: object, change: Any) -> Any:
    """What the section is given after the change: a section, its keys, or what cannot be one, as it is.

    A mapping changes its keys and leaves the others, a string names another member of a family, and an object takes the
    section's place. InvalidExperiment says which keys are wrong.
    """
    if isinstance(change, str) and isinstance(current, Family):
        change = {"name": change}
    if not isinstance(change, Mapping) or not isinstance(current, Section):
        return change
    displaced = {INSTEAD_OF.get(f"{section}.{key}", "").partition(".")[2] for key in change}
    keys = {**{key: None for key in displaced - change.keys() if getattr(current, key, None) is not None}, **change}
    name = keys.get("name")
    try:
        if not isinstance(current, Family) or name is None or name == current.name:
            return current.model_copy(update=keys)
    except InvalidExperiment as error:
        raise InvalidExperiment("\n".join(f"{section}.{line}" for line in str(error).splitlines())) from error
    return _renamed(current, keys)


def _renamed(current: Family, keys: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of another member of the family. Those of `current` remain that the other reads, too."""
    if not isinstance(keys["name"], str):
        return dict(keys)
    try:
        read = flat_keys(current.registry.resolve(keys["name"]))
    except UnknownName:  # Experiment says what is wrong with the name
        return dict(keys)
    return {**{key: value for key, value in current.given().items() if key in read}, **keys}
