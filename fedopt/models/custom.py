"""A model of the user's own: any factory of a torch module, named `package.module:function`."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from fedopt.errors import InvalidExperiment
from fedopt.imports import CannotImport, load_outside
from fedopt.models.base import Shape
from fedopt.models.factory import FactoryModel


class CustomModel(FactoryModel):
    """Further keys of [model] are passed to the factory, and so are `sample_shape` and `classes` if it has them."""

    def make(self, sample_shape: Shape, classes: int) -> nn.Module:
        factory = self._factory()
        accepted = inspect.signature(factory).parameters
        offered = {"sample_shape": sample_shape, "classes": classes}
        own = {key: value for key, value in offered.items() if key in accepted}
        return self.call(factory, {**(self.model_extra or {}), **own})

    def _factory(self) -> Any:
        try:
            return load_outside(self.name)
        except CannotImport as error:
            raise InvalidExperiment(f"model.name: {error}") from error
