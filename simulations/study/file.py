"""A study's file: a base experiment, a grid over its keys, and the axis to compare.

title = "FedAvg and SCAFFOLD from alpha 10 to 0.1"
seeds = 3                                    # 0, 1, 2; or a list of them
compare = "algorithm.name"                   # the axis that tables compare by; this one by default

[base.data]                                  # shared by all runs; missing keys use the defaults of `fedopt run`
clients = 50

[grid]                                       # every combination is run
"algorithm.name" = ["fedavg", "scaffold"]
"data.alpha" = [0.1, 1.0, { label = "iid", "data.partition" = "iid" }]

[[grid.optimizer]]                           # a value that sets several keys; a list makes one value per entry
label = "momentum"
"local.momentum" = 0.9
"local.lr" = [0.01, 0.03]

[[adjust]]                                   # other values for the combinations that match, of keys that no axis sets
when = { "algorithm.name" = "scaffold", optimizer = "momentum" }
set = { "algorithm.server_lr" = 0.9 }

[search]                                     # chooses the best of these per combination, on held-out training data
validation = 0.1
rounds = 20
grid = { "local.batch_size" = [16, 64] }

In each run an axis, an adjustment, the search and the seeds set different keys. `simulations.study.checks` refuses a
study in which two of them set the same key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from fedopt.errors import InvalidExperiment
from fedopt.experiment.changes import INSTEAD_OF
from fedopt.experiment.experiment import Experiment
from fedopt.experiment.file import override, read_toml
from fedopt.explain import explain
from fedopt.imports import search_in
from fedopt.registry import nearest
from fedopt.section import Section, wrong

SHIPPED = Path(__file__).parent.parent / "studies"
"""The folder of the studies that come with the package."""

ALGORITHM = "algorithm.name"

REFERENCE = "fedavg"
"""The algorithm that an experiment file's algorithm is compared with."""

SEED = "run.seed"
LABEL = "label"
"""The entry of a table in the grid that names its value."""


class Adjustment(Section):
    """Other values of some keys for the combinations that match."""

    when: dict[str, Any]
    """Axes, each with the value or label that it must have."""
    set: dict[str, Any]
    """The experiment's keys with their values."""


class Search(Section):
    """A hyperparameter search for each combination before its runs, judged on held-out training data."""

    grid: dict[str, list[Any]] = Field(min_length=1)
    validation: float = Field(0.1, gt=0, lt=1)
    rounds: int | None = Field(None, ge=1)
    """Rounds of a search run; by default as many as the study's runs."""
    seed: int = Field(0, ge=0)


class Study(Section):
    title: str = ""
    about: str = ""
    """The question, and how long the study takes."""
    seeds: int | list[int] = 3
    compare: str = ALGORITHM
    base: dict[str, Any] = Field(default_factory=dict)
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    adjust: list[Adjustment] = Field(default_factory=list)
    search: Search | None = None

    @field_validator("seeds", mode="before")
    @classmethod
    def _number_or_list(cls, seeds: Any) -> Any:
        if not all(type(number) is int for number in (seeds if isinstance(seeds, list) else [seeds])):
            raise ValueError(f"must be a number of seeds, or a list of them: 3 or [0, 1, 2], not {seeds!r}")
        return seeds

    @field_validator("grid", mode="before")
    @classmethod
    def _flat(cls, grid: Any) -> Any:
        return flatten(grid) if isinstance(grid, Mapping) else grid

    @field_validator("base")
    @classmethod
    def _sections(cls, base: dict[str, Any]) -> dict[str, Any]:
        for section, keys in base.items():
            if section not in Experiment.model_fields:
                raise ValueError(f"unknown section {section!r}; {nearest(section, Experiment.model_fields)}")
            if not isinstance(keys, dict):
                raise ValueError(f"{section} must be a section with keys")
        return base

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        for axis, values in self.grid.items():
            if not values:
                raise wrong("grid", f"{axis} has no values")
        if self.grid and self.compare not in self.grid:
            if "compare" in self.model_fields_set:
                raise wrong("compare", f"there is no axis {self.compare!r}; {nearest(self.compare, self.grid)}")
            object.__setattr__(self, "compare", next(iter(self.grid)))
        if not self.seed_list or len(set(self.seed_list)) < len(self.seed_list) or min(self.seed_list) < 0:
            raise wrong("seeds", "a number of seeds, at least 1, or a list of different ones, for example [0, 1, 2]")
        for adjustment in self.adjust:
            for axis in adjustment.when:
                if axis not in self.grid:
                    raise wrong("adjust", f"when: there is no axis {axis!r}; {nearest(axis, self.grid)}")
        return self

    @property
    def seed_list(self) -> list[int]:
        return list(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

    @property
    def own_keys(self) -> dict[str, str]:
        """Each key that the study itself sets outside of `base`, with what sets it."""
        found: dict[str, str] = {}
        for axis, values in self.grid.items():
            for value in values:
                keys = value.keys() - {LABEL} if isinstance(value, Mapping) else {axis}
                found |= dict.fromkeys(keys, f"the axis {axis}")
        found |= {key: "[[adjust]]" for adjustment in self.adjust for key in adjustment.set}
        if self.search is not None:
            found |= dict.fromkeys([*self.search.grid, "data.validation"], "[search]")
        return found


def flatten(tables: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"local": {"lr": [...]}} as {"local.lr": [...]}: TOML parses an unquoted dotted key into nested tables."""
    flat: dict[str, Any] = {}
    for name, value in tables.items():
        key = f"{prefix}{name}"
        flat |= flatten(value, f"{key}.") if isinstance(value, Mapping) else {key: value}
    return flat


def read_study(place: Path | None, overrides: list[str], seeds: int | None) -> tuple[str, Study]:
    """Reads the study in the file `place`, or the shipped study of that name; returns (name, study).

    An experiment file stands for a study that compares its algorithm with FedAvg, from the file's seed on.
    """
    file = _file_of(place or Path("digits"))
    changed = [text.partition("=")[0].strip() for text in overrides]
    if SEED in changed:
        raise InvalidExperiment(f"--set {SEED}: a study's runs have the seeds of --seeds, or of seeds in its file")
    given = read_toml(file, "study")
    search_in(file.parent)  # for a user's own model
    if given.keys() <= Experiment.model_fields.keys():
        return file.stem, _study(file, _of_experiment(override(given, overrides), seeds))
    base = given.get("base", {})
    if isinstance(base, dict):
        given["base"] = override(base, overrides)
    if seeds is not None:
        given["seeds"] = seeds
    study = _study(file, given)
    _check_overrides(study, changed)
    return file.stem, study


def _study(file: Path, given: dict[str, Any]) -> Study:
    try:
        return Study(**given)
    except ValidationError as error:
        raise InvalidExperiment("\n".join(f"{file.name}: {line}" for line in explain(error).splitlines())) from error


def _of_experiment(experiment: dict[str, Any], seeds: int | None) -> dict[str, Any]:
    """The study that an experiment file stands for. Errors in its sections are left to `Study` to report."""
    base = {section: dict(keys) if isinstance(keys, dict) else keys for section, keys in experiment.items()}
    algorithm, run = base.get("algorithm"), base.get("run")
    name = algorithm.pop("name", REFERENCE) if isinstance(algorithm, dict) else REFERENCE
    first = run.pop("seed", 0) if isinstance(run, dict) else 0
    if type(first) is not int or first < 0:
        raise InvalidExperiment(f"{SEED}: must be a whole number, at least 0, not {first!r}")
    count = Study.model_fields["seeds"].default if seeds is None else seeds
    return {
        "base": base,
        "grid": {ALGORITHM: [REFERENCE] if name == REFERENCE else [REFERENCE, name]},
        "seeds": list(range(first, first + count)),
    }


def _check_overrides(study: Study, keys: Sequence[str]) -> None:
    """Raises InvalidExperiment for a key on the command line that the study itself sets, and so would replace."""
    own = study.own_keys
    for key in keys:
        for same in (key, INSTEAD_OF.get(key, key)):
            if same in own:
                raise InvalidExperiment(f"--set {key}: {own[same]} of the study sets {same}; change it in a study file")


def _file_of(place: Path) -> Path:
    if place.suffix == ".toml" or place.is_file():
        return place
    shipped = _shipped()
    if str(place) not in shipped:
        raise InvalidExperiment(f"there is no study {place}, as a file or shipped; {nearest(str(place), shipped)}")
    return shipped[str(place)]


def shipped_studies() -> dict[str, str]:
    """The title and question of each shipped study, by its name."""
    found: dict[str, str] = {}
    for name, file in _shipped().items():
        given = read_toml(file, "study")
        found[name] = " ".join(f"{given['title']}. {given['about']}".split())
    return found


def _shipped() -> dict[str, Path]:
    return {file.stem: file for file in sorted(SHIPPED.glob("*.toml"))}
