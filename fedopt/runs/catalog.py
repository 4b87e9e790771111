"""All measures with their meanings, taken from the field docstrings of the records, so that none is missing."""

from __future__ import annotations

from typing import cast

from pydantic import BaseModel

from fedopt.algorithms import ALGORITHMS
from fedopt.algorithms.base import Algorithm
from fedopt.data.label_skew import LabelSpread
from fedopt.drift.records import ClassSpread, ClientSpread, Drift, GradientDrift, SecondMomentDrift
from fedopt.runs.history import RoundRecord
from fedopt.runs.regression import Regression

NOTATION = (
    "x is the model at the start of the round, y_i a client's after its work, d_i = y_i - x, w_i the client's weight "
    "among the round's clients (they add up to 1), d = sum w_i d_i."
)

READING = (
    'A dot stands for nesting: drift.ratio is record["drift"]["ratio"]. A measure that is undefined, not due in this '
    "round or unavailable is null."
)

PARTS: dict[str, type[BaseModel]] = {
    "regression": Regression,
    "drift": Drift,
    "gradients": GradientDrift,
    "moments": SecondMomentDrift,
    "clients": ClientSpread,
    "classes": ClassSpread,
}
"""Fields of a round's record that are objects themselves."""


def algorithm_records() -> dict[str, type[BaseModel]]:
    """For each registered algorithm that has measures of its own, by its name: what they are."""
    kinds = {name: cast(type[Algorithm], ALGORITHMS.load(name)).record for name in ALGORITHMS}
    return {name: record for name, record in kinds.items() if record is not None}


def metrics() -> dict[str, dict[str, str]]:
    """Titled groups of names with their meanings."""
    rounds = {name: meaning for name, meaning in _described(RoundRecord).items() if name not in PARTS}
    groups = {"every line of metrics.jsonl": rounds}
    for part, record in PARTS.items():
        title = f"{part}: {_described(RoundRecord)[part]}"
        groups[title] = {f"{part}.{name}": meaning for name, meaning in _described(record).items()}
    for algorithm, record in algorithm_records().items():
        described = _described(record)
        groups[f"algorithm, of {algorithm}"] = {f"algorithm.{name}": meaning for name, meaning in described.items()}
    groups["partition.json"] = _described(LabelSpread)
    return groups


def scalars() -> list[str]:
    """Names of the measures that are one number per round, as in results.csv."""
    names = [f"{part}.{name}" for part, record in PARTS.items() for name in _numbers(record)]
    own = [f"algorithm.{name}" for record in algorithm_records().values() for name in _numbers(record)]
    return [*names, *dict.fromkeys(own), "divergence"]


def meaning(name: str) -> str:
    """The description of the measure."""
    return next(entries[name] for entries in metrics().values() if name in entries)


def value_of(record: RoundRecord, measure: str) -> float | None:
    """The measure of that name, for example drift.ratio."""
    part, _, name = measure.rpartition(".")
    if part == "algorithm":
        return None if record.algorithm is None else record.algorithm.get(name)
    holder: object = getattr(record, part) if part in PARTS else record
    value = None if holder is None else getattr(holder, name)
    return value if value is None else float(value)


def _described(record: type[BaseModel]) -> dict[str, str]:
    return {name: " ".join((field.description or "").split()) for name, field in record.model_fields.items()}


def _numbers(record: type[BaseModel]) -> list[str]:
    return [name for name, field in record.model_fields.items() if field.annotation in (float, float | None)]
