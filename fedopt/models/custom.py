"""A model of the user's own: any factory of a torch module, named `package.module:function`."""

from __future__ import annotations

import inspect
from typing import Any

from pydantic import ConfigDict, model_validator
from torch import nn

from fedopt.errors import InvalidExperiment
from fedopt.imports import CannotImport, load_outside
from fedopt.models.base import ModelFamily, Shape


class CustomModel(ModelFamily):
    """Further keys of [model] are passed to the factory, and so are `sample_shape` and `classes` if it has them."""

    model_config = ConfigDict(extra="allow")

    @model_validator(mode="before")
    @classmethod
    def _name_the_nearest_key(cls, given: Any) -> Any:
        return given  # every further key is the factory's

    def build(self, sample_shape: Shape, classes: int) -> nn.Module:
        factory = self._factory()
        arguments = dict(self.model_extra or {})
        accepted = inspect.signature(factory).parameters
        offered = {"sample_shape": sample_shape, "classes": classes}
        arguments.update({key: value for key, value in offered.items() if key in accepted})
        try:
            module = factory(**arguments)
        except TypeError as error:
            raise InvalidExperiment(f"model.name: {self.name} cannot be called: {error}") from error
        if not isinstance(module, nn.Module):
            raise InvalidExperiment(f"model.name: {self.name} returned {type(module).__name__}, not a torch.nn.Module")
        return module

    def _factory(self) -> Any:
        try:
            return load_outside(self.name)
        except CannotImport as error:
            raise InvalidExperiment(f"model.name: {error}") from error
