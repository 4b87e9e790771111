"""A section with fields that hold members of families, whose keys lie flat in it. `fedopt.family` has an example."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import (
    ModelWrapValidatorHandler,
    PrivateAttr,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationError,
    create_model,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from fedopt.explain import UNKNOWN_KEY
from fedopt.family import Family, resolve
from fedopt.imports import place_of
from fedopt.registry import Registry, nearest
from fedopt.section import Section, wrong


@dataclass(frozen=True)
class FamilyField:
    """A field of a section that holds a member of a family."""

    field: str
    """What Python calls it, as `source` in `experiment.data.source`."""
    key: str
    """What TOML calls it, as `name` in `data.name`; its value is the member's name."""
    registry: Registry
    default: str | Callable[[Mapping[str, type[Family]], Mapping[str, Any]], str]
    """The member's name where none is given; it may depend on the classes chosen for the fields before this one, and on
    the keys that are given."""


class Composite(Section):
    """A section, or a member that wraps another member, with fields that hold members of families.

    It is given and written flat, as the module's docstring shows. A member may also be given as an object, by its field
    or by its key. A key that no chosen member reads, though another member of the family would, is left out and
    remembered in `unread`.

    Type checkers take flat keys in Python if the subclass declares `__init__(self, **keys: Any)`.
    """

    families: ClassVar[tuple[FamilyField, ...]] = ()
    _named: frozenset[str] = PrivateAttr(frozenset())
    """Keys of the families whose member was given and is no default."""
    _unread: dict[str, Unread] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _nest(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(given, Mapping):
            return handler(given)
        flat = _by_key(cls, given)
        choices = _choose(cls, flat)
        readers = _readers(cls, cls.__name__, choices, flat)
        unread = _unread(cls, {key: value for key, value in flat.items() if key not in readers}, choices)
        own = {key: flat[key] for key in _own_keys(cls) if key in flat}
        for choice in choices:
            own.pop(choice.family.key, None)
            own[choice.family.field] = choice.build(flat)
        section = handler(own)
        section._named = frozenset(family.key for family in cls.families if family.key in flat)
        section._unread = unread
        return section

    @model_serializer(mode="wrap")
    def _flatten(self, handler: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        keys = {family.field: family.key for family in self.families}
        flat: dict[str, Any] = {}
        for field, value in handler(self).items():
            if field in keys:
                member = getattr(self, field).model_dump(mode=info.mode, exclude_none=info.exclude_none)
                flat |= {keys[field]: member.pop("name"), **member}
            else:
                flat[field] = value
        return flat

    def __eq__(self, other: object) -> bool:
        """Whether both say the same; keys that nothing reads do not count."""
        return type(self) is type(other) and self.__dict__ == other.__dict__

    @property
    def unread(self) -> dict[str, str]:
        """Keys that were given and that nothing reads, each with the name of the member that does not read it."""
        return {key: unread.by for key, unread in self._unread.items()}

    @property
    def unread_values(self) -> dict[str, Any]:
        """The values of the keys that were given and that nothing reads."""
        return {key: unread.value for key, unread in self._unread.items()}

    def notes(self, section: str) -> list[str]:
        """One sentence for each key of `unread` whose value is not the default of a member that would read it."""
        return [
            f"{section}.{key} is not used by {unread.by}"
            for key, unread in sorted(self._unread.items())
            if not unread.is_default
        ]

    def given(self) -> dict[str, Any]:
        """The flat keys that were given, with their values; a member without a given name stands there as its class."""
        fields = {family.field for family in self.families}
        flat = {key: getattr(self, key) for key in self.model_fields_set - fields}
        for family in self.families:
            member: Family = getattr(self, family.field)
            keys = member.given()
            name = keys.pop("name", type(member))
            flat |= {**keys, family.key: name} if family.key in self._named else keys
        return flat

    def forget_given(self, keys: Iterable[str]) -> None:
        """Treats these keys as defaults that nobody gave, though they were among the section's keys."""
        dropped = set(keys)
        self._named = self._named - dropped
        for family in self.families:
            member: Family = getattr(self, family.field)
            member.model_fields_set.difference_update(dropped | ({"name"} if family.key in dropped else set()))
            dropped |= {family.field} if family.key in dropped else set()
        self.model_fields_set.difference_update(dropped)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As `Section.model_copy`, by flat keys. Keys that only a displaced member reads are dropped."""
        if not update:
            return super().model_copy(deep=deep)
        changes = _by_key(type(self), update)
        idle = self.unread_values
        before = idle | self.given()
        for family in self.families:
            if isinstance(changes.get(family.key), Family):  # an object comes with all of its keys
                before = {key: before[key] for key in before.keys() - getattr(self, family.field).given().keys()}
        with suppress(PydanticCustomError):  # what is wrong is found again below
            merged = before | changes
            readers = _readers(type(self), "", _choose(type(self), merged), merged)
            before = {key: value for key, value in before.items() if key in readers or key in idle}
        changed = self.remade(before | changes)
        return changed.model_copy(deep=True) if deep else changed


@dataclass(frozen=True)
class Unread:
    """A key that was given to no effect."""

    by: str
    """The member that does not read it."""
    value: Any
    is_default: bool
    """Whether a member that would read it has this value by default."""


@dataclass(frozen=True)
class _Choice:
    """The member that a family field will hold."""

    family: FamilyField
    kind: type[Family]
    name: str = ""
    """As it was given; empty where a class or an object was given."""
    member: Family | None = None
    """Where an object was given."""
    nested: tuple[_Choice, ...] = ()
    """The choices of a member that wraps others."""

    @property
    def called(self) -> str:
        """Its name in messages."""
        return self.member.name if self.member is not None else self.name or place_of(self.kind)

    def readers(self, flat: Mapping[str, Any]) -> dict[str, str]:
        if self.member is None:
            return _readers(self.kind, self.called, self.nested, flat)
        keys = self.member.model_dump().keys()
        twice = keys & flat.keys() - {"name", self.family.key}
        if twice:
            raise wrong(min(twice), f"{self.called} is given as an object, which has its own; set it there")
        return dict.fromkeys(keys, self.called)

    def build(self, flat: Mapping[str, Any]) -> Family:
        if self.member is not None:
            return self.member
        given = {key: flat[key] for key in self.readers(flat) if key in flat}
        given.pop("name", None)
        member = self.kind.model_validate({**given, "name": self.name} if self.name else given)
        if self.family.key not in flat:  # a default, under whose name nothing was asked for
            member.model_fields_set.discard("name")
        return member


def flat_keys(section: type[Section]) -> set[str]:
    """Every flat key that the section, or some member in it, may read."""
    families = section.families if issubclass(section, Composite) else ()
    return {*_own_keys(section), *(key for family in families for key, _ in _possible(family.registry))}


def _by_key(section: type[Composite], given: Mapping[str, Any]) -> dict[str, Any]:
    """A copy in which an object that was given by its field stands under its key."""
    flat = dict(given)
    for family in section.families:
        if family.field != family.key and isinstance(flat.get(family.field), Family):
            if family.key in flat:
                raise wrong(family.key, f"give {family.key}, or an object {family.field}, not both")
            flat[family.key] = flat.pop(family.field)
    return flat


def _choose(
    section: type[Section], flat: Mapping[str, Any], outer: Mapping[str, str] | None = None
) -> tuple[_Choice, ...]:
    """A choice for each family field; `outer` has the family keys of the members around this one, with their names."""
    choices: list[_Choice] = []
    taken = dict(outer or {})
    for family in section.families if issubclass(section, Composite) else ():
        if family.key in taken:
            raise wrong(family.key, f"{taken[family.key]} cannot wrap another member with a key {family.key}")
        given = flat[family.key] if family.key in flat else _default(family, choices, flat)
        kind = resolve(family.registry, given, family.key)
        if isinstance(given, Family):
            choices.append(_Choice(family, kind, member=given))
        else:
            name = given if isinstance(given, str) else ""
            around = taken | {family.key: name or place_of(kind)}
            choices.append(_Choice(family, kind, name, nested=_choose(kind, flat, around)))
    return tuple(choices)


def _default(family: FamilyField, before: list[_Choice], flat: Mapping[str, Any]) -> str:
    if isinstance(family.default, str):
        return family.default
    return family.default({choice.family.field: choice.kind for choice in before}, flat)


def _own_keys(section: type[Section]) -> list[str]:
    """The section's flat keys without those of its members: fields, keys of families, and keys that were renamed."""
    keys = {family.field: family.key for family in section.families} if issubclass(section, Composite) else {}
    return [keys.get(field, field) for field in section.model_fields] + list(section.renamed)


def _readers(
    section: type[Section], called: str, choices: tuple[_Choice, ...], flat: Mapping[str, Any]
) -> dict[str, str]:
    """Every flat key of the section and of its chosen members, with who reads it."""
    readers = dict.fromkeys(_own_keys(section), called)
    for choice in choices:
        for key, reader in choice.readers(flat).items():
            if key == "name":  # stands in the section under the family's key
                continue
            if key in readers:
                raise wrong(key, f"{readers[key]} and {reader} both have a key of this name; they do not go together")
            readers[key] = reader
    return readers


def _unread(section: type[Composite], given: Mapping[str, Any], choices: tuple[_Choice, ...]) -> dict[str, Unread]:
    """The keys that nothing reads: mistakes, unless another member of a family would read them."""
    if not given:
        return {}
    known = [(choice.called, key, would) for choice in choices for key, would in _possible(choice.family.registry)]
    found: dict[str, Unread] = {}
    for key, value in given.items():
        matching = [(called, would) for called, other, would in known if other == key]
        if not matching:
            names = dict.fromkeys([*_own_keys(section), *(other for _, other, _ in known)])
            raise wrong(key, f"{UNKNOWN_KEY}{nearest(key, names)}")
        found[key] = Unread(matching[0][0], value, _is_default(key, value, [would for _, would in matching]))
    return found


_Reader = type[Section] | FamilyField
"""Who would read a key: the member that has a field of this name, or the family that has a key of it."""


def _possible(registry: Registry, seen: frozenset[str] = frozenset()) -> Iterator[tuple[str, _Reader]]:
    """Every key that some registered member reads, with who would."""
    for kind in registry.kinds():
        families = {family.field: family for family in kind.families} if issubclass(kind, Composite) else {}
        yield from ((key, kind) for key in kind.model_fields.keys() - families.keys() - {"name"})
        for family in families.values():
            yield family.key, family
            if family.registry.kind not in seen | {registry.kind}:
                yield from _possible(family.registry, seen | {registry.kind})


def _is_default(key: str, value: Any, readers: list[_Reader]) -> bool:
    """Whether one of the readers has this value by default; a mistake if none of them takes it."""
    mistakes: list[ValidationError | PydanticCustomError] = []
    taken: list[bool] = []
    for reader in readers:
        try:
            taken.append(_has_by_default(reader, key, value))
        except (ValidationError, PydanticCustomError) as error:
            mistakes.append(error)
    if not taken:
        raise mistakes[0]
    return any(taken)


def _has_by_default(reader: _Reader, key: str, value: Any) -> bool:
    if isinstance(reader, FamilyField):
        resolve(reader.registry, value, key)
        return bool(value == reader.default)
    field = copy(reader.model_fields[key])
    alone = create_model(reader.__name__, __base__=Section, **{key: (field.annotation, field)})  # type: ignore[call-overload]
    given = getattr(alone.model_validate({key: value}), key)
    return not field.is_required() and bool(given == getattr(alone(), key))
