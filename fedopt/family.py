"""A family: algorithms, optimizers, partitions and so on, where each member is one class that is its own settings.

A member is a file of its own and an entry in its folder's registry. In TOML the keys of a member lie flat in the
section that names it:

    [data]
    partition = "dirichlet"     # which member of the family of partitions
    alpha = 0.1                 # a key of this member
    clients = 20                # a key of the section itself

In Python the member is an object: `experiment.data.partition.alpha`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, cast

from pydantic import ValidationError, model_validator
from pydantic._internal._model_construction import ModelMetaclass  # the class of BaseModel has no public name

from fedopt.errors import InvalidExperiment
from fedopt.explain import explain
from fedopt.hooks import misspelled_hook
from fedopt.imports import place_of, remember
from fedopt.registry import Registry, UnknownName
from fedopt.section import Section, wrong


class _Sentences(ModelMetaclass):
    """Wrong arguments of a member that Python makes, as in `FedAvg(server_lr=-1)`, are an InvalidExperiment with a
    sentence each. Members that an experiment makes of its keys are validated without a call, and their mistakes are
    reported with the experiment's."""

    def __call__(self, *given: Any, **keys: Any) -> Any:
        try:
            return super().__call__(*given, **keys)
        except ValidationError as error:
            lines = explain(error).splitlines()
            raise InvalidExperiment("\n".join(f"{self.__name__}.{line}" for line in lines)) from error


class Family(Section, metaclass=_Sentences):
    """Base of a family. Its members derive from it; their fields are keys of the experiment.

    `name` is what TOML calls the member. Where it is not given, it is the name under which the registry has this very
    class, or `package.module:Class` for a class from outside. A class that stands for all names with a prefix, as
    `timm:resnet18`, needs it.
    """

    registry: ClassVar[Registry]
    refuses_misspelled_hooks: ClassVar[bool] = False
    """Whether a method whose name resembles one of the base's is a mistake; see `fedopt.hooks`."""
    name: str = ""

    @model_validator(mode="after")
    def _fit_the_name(self) -> Self:
        if "name" in self.model_fields_set:
            if resolve(self.registry, self.name, "name") is not type(self):
                raise wrong("name", f"{self.name} is not {place_of(type(self))}; leave out the name")
        elif not self.name:
            prefix = self.registry.prefix_of(type(self))
            if prefix is not None:
                raise wrong("name", f'give {type(self).__name__} a name, as in name="{prefix}:NAME"')
            names = self.registry.names_of(type(self))
            if len(names) > 1:
                raise wrong("name", f"{type(self).__name__} has more than one name; give one of {', '.join(names)}")
            object.__setattr__(self, "name", names[0] if names else place_of(type(self)))
            remember(type(self))
        return self

    @model_validator(mode="after")
    def _hooks_are_known(self) -> Self:
        if self.refuses_misspelled_hooks:
            base = next(owner for owner in reversed(type(self).__mro__) if "registry" in vars(owner))
            found = misspelled_hook(type(self), base)
            if found is not None:
                told = f"{type(self).__name__} has a method {found[0]}, which fedopt never calls"
                raise wrong("name", f"{told}; did you mean {found[1]}? (begin the name of a method of your own with _)")
        return self

    @property
    def after_prefix(self) -> str:
        """NAME of a name `prefix:NAME`."""
        return self.name.partition(":")[2]

    def outside_names(self) -> set[str]:
        """The names `package.module:attribute` of code from outside that this member asks for."""
        return {self.name} if self.registry.is_outside(self.name) else set()


def resolve(registry: Registry, given: Any, key: str) -> type[Family]:
    """The class of a member that is given by its name, as a class or as an object; a mistake at `key` if it is none."""
    kind = type(given) if isinstance(given, Family) else given
    if not isinstance(kind, str | type):
        raise wrong(key, f"must be a string, not {given!r}")
    try:
        if isinstance(kind, str):
            return cast(type[Family], registry.resolve(kind))
        return cast(type[Family], registry.check_member(kind, place_of(kind)))
    except UnknownName as error:
        raise wrong(key, str(error)) from error


def as_member(registry: Registry, default: str) -> Callable[[Any], Any]:
    """A validator of a section that is itself a member, as [algorithm] is: from its keys, its name or its class to an
    object."""

    def member(given: Any) -> Any:
        if isinstance(given, str):
            given = {"name": given}
        if isinstance(given, type):
            return resolve(registry, given, "name").model_validate({})
        if not isinstance(given, Mapping):
            return given
        kind = resolve(registry, given.get("name", default), "name")
        return kind.model_validate(given)

    return member


def outside_names(section: Section) -> set[str]:
    """The names `package.module:attribute` of code from outside that the section and those in it hold."""
    names = section.outside_names() if isinstance(section, Family) else set()
    for value in section.__dict__.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, Section):
                names |= outside_names(part)
    return names
