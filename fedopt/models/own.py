"""A model that Python code has passed to `fedopt.run(..., model=...)`: a module, or a function that makes one.

The experiment holds the name of its class or function and, of a module, a hash of its initial weights. The object is
found by these, in this process and in those that it forks, as long as an experiment or history holds it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Self
from weakref import WeakValueDictionary

from pydantic import Field, PrivateAttr, model_validator
from torch import Tensor, nn

from fedopt.errors import InvalidExperiment
from fedopt.imports import place_of
from fedopt.models.base import ModelFamily, Shape
from fedopt.models.own_code import code_fingerprint
from fedopt.section import wrong
from fedopt.vectors.layout import fingerprint, state_of_module


@dataclass(frozen=True, eq=False)
class _Held:
    module: nn.Module | None
    function: Callable[..., Any] | None


_held: WeakValueDictionary[tuple[str, str, str], _Held] = WeakValueDictionary()


class OwnModel(ModelFamily):
    """Made from `model=`, not written by hand."""

    kind: str
    """The module's class or the function, as package.module:Name; __main__ is the notebook or session."""
    sha256: str = Field("", pattern="^([0-9a-f]{64})?$")
    """Of the module's initial weights; empty for a function, whose weights follow from the run's seed."""
    code: str = Field("", pattern="^([0-9a-f]{16})?$")
    """Of the code that defines it: models of one name that differ are different models."""
    _own: _Held | None = PrivateAttr(None)

    @model_validator(mode="before")
    @classmethod
    def _need_an_object(cls, given: Any) -> Any:
        if isinstance(given, dict) and "kind" not in given:
            raise wrong("name", "object stands for a model in Python; pass it: fedopt.run(..., model=...)")
        return given

    @model_validator(mode="after")
    def _find(self) -> Self:
        self._own = _held.get((self.kind, self.sha256, self.code))
        return self

    @classmethod
    def of(cls, model: object, code: str | None = None, **keys: Any) -> Self:
        """For a module or a function; `keys` are further ones of [model]. InvalidExperiment if it is neither.

        `code` is the fingerprint that a run which is resumed began with, whatever that of `model` is by now.
        """
        if isinstance(model, nn.Module):
            own = _Held(deepcopy(model), None)  # the user's goes its own way
            kind, sha256 = place_of(type(model)), fingerprint(state_of_module(model))
        elif callable(model):
            own, kind, sha256 = _Held(None, model), place_of(model), ""
        else:
            raise InvalidExperiment(
                f"model=: it must be a torch.nn.Module, or a function of sample_shape and classes that returns one, "
                f"not {type(model).__name__}"
            )
        code = code_fingerprint(model) if code is None else code
        _held[kind, sha256, code] = own
        return cls(kind=kind, sha256=sha256, code=code, **keys)

    @property
    def title(self) -> str:
        return self.kind

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def build(self, sample_shape: Shape, classes: int) -> nn.Module:
        if self._own is None:
            raise InvalidExperiment(
                f"model.name: this run's model is {self.kind}, which was passed in Python; pass it again, as "
                "fedopt.load(directory, model=...) or fedopt.resume(directory, model=...), or build it yourself and "
                "load history.weights"
            )
        if self._own.module is not None:
            return deepcopy(self._own.module)
        assert self._own.function is not None
        return _made_by(self._own.function, self.kind, sample_shape, classes)

    def initial_state(self) -> dict[str, Tensor] | None:
        """The module's state_dict before the first round; None for a function."""
        own = self._own
        return None if own is None or own.module is None else state_of_module(own.module)


def _made_by(function: Callable[..., Any], name: str, sample_shape: Shape, classes: int) -> nn.Module:
    offered = {"sample_shape": sample_shape, "classes": classes}
    try:
        accepted = inspect.signature(function).parameters
        places = [p for p in accepted.values() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
        if len(places) == 2 and not offered.keys() & accepted.keys():
            module = function(sample_shape, classes)
        else:
            module = function(**{key: value for key, value in offered.items() if key in accepted})
    except (TypeError, ValueError) as error:
        raise InvalidExperiment(f"model=: {name} cannot be called: {error}") from error
    if not isinstance(module, nn.Module):
        raise InvalidExperiment(f"model=: {name} returned {type(module).__name__}, not a torch.nn.Module")
    return module
