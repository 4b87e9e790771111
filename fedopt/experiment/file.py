"""Experiments as TOML: reading with overrides, writing complete and resolved."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import tomli_w

from fedopt.composite import Composite, flat_keys
from fedopt.errors import InvalidExperiment
from fedopt.experiment.changes import INSTEAD_OF
from fedopt.experiment.experiment import Experiment
from fedopt.family import Family
from fedopt.imports import search_in
from fedopt.registry import Registry, UnknownName
from fedopt.section import Section

SECTIONS = {name: cast(type[Section], field.annotation) for name, field in Experiment.model_fields.items()}
"""The base class of each section."""

_MEMBERS = {name for name, kind in SECTIONS.items() if issubclass(kind, Family)}
"""Sections that are a member of a family themselves."""


def read_experiment(file: Path | None, overrides: Sequence[str] = ()) -> Experiment:
    """The experiment in `file` (the digits default without one), changed by `section.key=value` overrides."""
    given = {} if file is None else read_toml(file, "experiment")
    if file is not None:
        search_in(file.parent)  # where the user's own code may lie
    return Experiment(**override(given, overrides))


def read_toml(file: Path, kind: str) -> dict[str, Any]:
    """The tables of a TOML file; InvalidExperiment says why there are none."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))  # editors on Windows begin files with a BOM
    except FileNotFoundError as error:
        raise InvalidExperiment(f"there is no {kind} file {file}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidExperiment(f"{file} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidExperiment(f"{file} is not valid TOML: {error}") from error


def override(given: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of `given` with each `section.key=value` applied; values are TOML, a bare word is a string.

    InvalidExperiment for overrides that contradict each other: which one is meant is not guessed.
    """
    changes: list[tuple[str, Any]] = []
    for text in overrides:
        path, equals, value = text.partition("=")
        if not (equals and is_key(path.strip())):
            example = f"{path.strip()}.name={value.strip()}" if path.strip() in _MEMBERS else "run.rounds=10"
            raise InvalidExperiment(f"--set {text}: an override is section.key=value, for example --set {example}")
        changes.append((path.strip(), _value(value.strip())))
    _refuse_contradictions(changes)
    return change(given, changes)


def _refuse_contradictions(changes: Sequence[tuple[str, Any]]) -> None:
    values: dict[str, Any] = {}
    for path, value in changes:
        if path in values and repr(values[path]) != repr(value):
            raise InvalidExperiment(f"{path}: given twice, as {values[path]!r} and as {value!r}; give it once")
        values[path] = value
    for path, other in INSTEAD_OF.items():
        if path in values and other in values:
            section, _, key = path.partition(".")
            raise InvalidExperiment(f"{path}: give {other.removeprefix(f'{section}.')} or {key}, not both")


def is_key(path: str) -> bool:
    """Whether it has the form section.key."""
    section, dot, key = path.partition(".")
    return bool(section and dot and key)


def change(given: dict[str, Any], changes: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A copy of `given` with each (section.key, value) applied; what a change displaces goes."""
    changed = {key: dict(section) if isinstance(section, dict) else section for key, section in given.items()}
    for path, value in changes:
        _drop_displaced(changed, path, value)
    for path, value in changes:
        section, _, key = path.partition(".")
        inner = changed.setdefault(section, {})
        if not isinstance(inner, dict):
            raise InvalidExperiment(f"{section}: must be a section with keys")
        inner.pop(INSTEAD_OF.get(path, "").partition(".")[2], None)
        inner[key] = value
    return changed


def _drop_displaced(changed: dict[str, Any], path: str, name: Any) -> None:
    """`model.name=cnn` over a file with an mlp: `hidden` goes, for it belongs to the member that is displaced.

    Sections with several families keep such a key, which a note points out, if it is known without the file's own code.
    """
    section, _, key = path.partition(".")
    inner, kind = changed.get(section), SECTIONS.get(section)
    if not isinstance(inner, dict) or not isinstance(name, str) or kind is None or inner.get(key) == name:
        return
    with suppress(UnknownName):  # reported later, with its place
        if issubclass(kind, Family) and key == "name":
            displaced = inner.keys() - _keys_of(kind.registry, name, inner.keys())
        elif issubclass(kind, Composite):
            registry = next((family.registry for family in kind.families if family.key == key), None)
            before = inner.get(key)
            if registry is None or not isinstance(before, str) or not registry.is_outside(before):
                return
            own = _keys_of(registry, before, set())
            displaced = (own & inner.keys()) - flat_keys(kind) - _keys_of(registry, name, own) - {key}
        else:
            return
        for other in displaced:
            del inner[other]


def _keys_of(registry: Registry, name: str, unknown: AbstractSet[str]) -> AbstractSet[str]:
    """What the member of that name reads; `unknown` if it takes any key."""
    kind = registry.resolve(name)
    return unknown if kind.model_config.get("extra") == "allow" else flat_keys(kind)


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def to_toml(experiment: Experiment) -> str:
    """The whole experiment, defaults included; reading it gives the same experiment."""
    return tomli_w.dumps(as_sections(experiment))


def as_sections(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """The whole experiment as plain values; absent keys are left out."""
    sections: dict[str, dict[str, Any]] = experiment.model_dump(mode="json", exclude_none=True)
    return sections
