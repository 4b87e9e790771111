"""Every key that an experiment may have, with its type, its default and its meaning: `fedopt list keys`.

The meaning of a key is the docstring below its field.
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

from pydantic import create_model
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from fedopt.algorithms import ALGORITHMS
from fedopt.channel import STAGES
from fedopt.composite import Composite
from fedopt.experiment.experiment import Experiment
from fedopt.family import Family
from fedopt.models import MODELS
from fedopt.registry import Registry, load_attribute
from fedopt.round.gathering import GATHERINGS
from fedopt.section import Section

MEMBERS: Mapping[str, Registry] = {"model": MODELS, "algorithm": ALGORITHMS, "gathering": GATHERINGS}
"""Sections that are themselves a member of a family, named by their key `name`."""

ABOUT = {
    "data": "Which data, and how they are spread over clients.",
    "model": "The model that is trained; without this section, `mlp` with `hidden = [64]`.",
    "algorithm": "What clients send, and what the server does with it.",
    "local": "How a client trains on its own data.",
    "server": "How the server's rate, algorithm.server_lr, changes over the rounds.",
    "run": "How long, how many clients a round, on which device.",
    "metrics": "What is measured besides loss and accuracy, and how often.",
    "admission": "Updates beyond these bounds are left out; a run that learns stays far below the defaults.",
    "channel": "What happens to vectors between clients and server.",
    "gathering": "How the server combines the updates of a round.",
}


@dataclass(frozen=True)
class Key:
    name: str
    """As in `run.rounds`."""
    kind: str
    """The values that it takes."""
    default: str
    """As TOML; `required`, or empty where nothing is the default."""
    meaning: str


@dataclass(frozen=True)
class Group:
    """A section, or what a member of a family adds to it."""

    section: str
    members: tuple[str, ...]
    """Names of the members that have these keys; none for the section's own."""
    chosen_by: str
    """The key that names the member, as `data.partition`."""
    about: str
    keys: tuple[Key, ...]

    @property
    def title(self) -> str:
        if not self.members:
            return f"[{self.section}]"
        return f"{self.chosen_by} = {_either([json.dumps(name) for name in self.members])}"


def key_groups() -> list[Group]:
    """All keys, section by section; after each section those of the members that it may name."""
    return [group for section in Experiment.model_fields for group in _of_section(section)]


def _of_section(section: str) -> Iterator[Group]:
    if section in MEMBERS:
        registry = MEMBERS[section]
        default = cast(Family, Experiment.model_fields[section].default)
        base = cast(type[Section], load_attribute(registry.base))
        name = Key(f"{section}.name", _names(registry), _toml(default.name), f"Which {registry.kind}.")
        yield Group(section, (), "", ABOUT[section], (name, *_own(section, base)))
        yield from _of_members(section, f"{section}.name", registry, base)
        for key, wrapped in _wrapped_by(registry).items():
            inner = cast(type[Section], load_attribute(wrapped.base))
            yield from _of_members(section, f"{section}.{key}", wrapped, inner)
        return
    kind = cast(type[Section], type(Experiment.model_fields[section].default))
    yield Group(section, (), "", ABOUT[section], tuple(_own(section, kind)))
    if issubclass(kind, Composite):
        for family in kind.families:
            base = cast(type[Section], load_attribute(family.registry.base))
            yield from _of_members(section, f"{section}.{family.key}", family.registry, base)
    if section == "channel":
        yield from _of_members(section, "channel.stages", STAGES, cast(type[Section], load_attribute(STAGES.base)))


def _wrapped_by(registry: Registry) -> dict[str, Registry]:
    """The families that members of a family wrap a member of, by their keys."""
    kinds = [kind for kind in registry.kinds() if issubclass(kind, Composite)]
    return {family.key: family.registry for kind in kinds for family in kind.families}


def _of_members(section: str, chosen_by: str, registry: Registry, base: type[Section]) -> Iterator[Group]:
    """One group for all members with the same keys."""
    found: dict[tuple[Key, ...], list[str]] = {}
    for name in _all_names(registry):
        kind = registry.resolve(name)
        same = [key for key, field in base.model_fields.items() if _default(kind.model_fields[key]) == _default(field)]
        keys = tuple(_own(section, kind, without=same))
        if keys:
            found.setdefault(keys, []).append(name)
    for keys, names in found.items():
        about = _about(registry, names[0]) if len(names) == 1 else ""
        about = f"{about[:1].upper()}{about[1:]}." if about else ""
        yield Group(section, tuple(names), chosen_by, about, keys)


def _own(section: str, kind: type[Section], without: Iterable[str] = ()) -> Iterator[Key]:
    families = {family.field: family for family in kind.families} if issubclass(kind, Composite) else {}
    meanings = _meanings(kind)
    for name, field in kind.model_fields.items():
        if name == "name" or name in without:
            continue
        meaning = meanings.get(name, "")
        if name in families:
            family = families[name]
            default = _toml(family.default) if isinstance(family.default, str) else ""
            wraps = issubclass(kind, Family) and kind.registry is family.registry  # a wrapper wraps no wrapper
            yield Key(
                f"{section}.{family.key}", _names(family.registry, but=family.key if wraps else ""), default, meaning
            )
        else:
            yield Key(f"{section}.{name}", _kind(name, field), _default(field), meaning)


@cache
def _meanings(kind: type[Section]) -> dict[str, str]:
    """The docstrings below the fields of a class and of its bases, on one line each."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if not issubclass(base, Section) or base is Section:
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(definition, ast.ClassDef)
        for field, below in zip(definition.body, definition.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
                text = below.value.value if isinstance(below.value, ast.Constant) else None
                if isinstance(text, str):
                    found[field.target.id] = " ".join(text.split())
    return found


def _names(registry: Registry, but: str = "") -> str:
    """The names of the members, without those that have a family key `but` themselves or refuse to be wrapped."""
    if not len(registry):
        return '"package.module:Class"'
    return _either(
        [json.dumps(name) for name in _all_names(registry) if not (but and _stays_outside(registry, name, but))]
    )


def _stays_outside(registry: Registry, name: str, key: str) -> bool:
    kind = registry.resolve(name)
    if not getattr(kind, "can_be_base", True):
        return True
    return issubclass(kind, Composite) and any(family.key == key for family in kind.families)


def _all_names(registry: Registry) -> list[str]:
    """Also `prefix:NAME` for the names of a library."""
    return [*registry, *(f"{prefix}:NAME" for prefix in registry.prefixes)]


def _about(registry: Registry, name: str) -> str:
    prefix, colon, _ = name.partition(":")
    return (registry.prefixes[prefix] if colon else registry.entry(name)).about


def _either(words: Sequence[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "" if value is None or value is PydanticUndefined else _toml(value)


def _toml(value: Any) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) and abs(value) < 1e-3 else str(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(str(value))


def _kind(name: str, field: FieldInfo) -> str:
    alone = create_model("Alone", __base__=Section, **{name: (field.annotation, copy(field))})  # type: ignore[call-overload]
    schema = alone.model_json_schema()
    return _described(schema["properties"][name])


def _described(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_described(one) for one in schema["anyOf"] if one.get("type") != "null")
    if "enum" in schema or "const" in schema:
        return _either([json.dumps(value) for value in schema.get("enum", [schema.get("const")])])
    if schema.get("type") == "array":
        inner = schema.get("prefixItems") or [schema.get("items", {})]
        return f"list of {_described(inner[0])}"
    words = {"integer": "integer", "number": "number", "boolean": "true or false", "string": "string"}
    word = "path" if schema.get("format") == "path" else words.get(str(schema.get("type")), "table")
    bounds = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    limits = [f"{said} {schema[bound]:g}" for bound, said in bounds.items() if bound in schema]
    return ", ".join([word, *limits])
