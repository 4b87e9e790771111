"""Models that a function of another package makes: torchvision's, timm's, the user's own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator
from torch import nn

from fedopt.errors import InvalidExperiment
from fedopt.models.base import ModelFamily, Shape
from fedopt.models.norm import GROUPS, with_group_norm
from fedopt.section import wrong


class FactoryModel(ModelFamily):
    """Further keys of [model] are passed to the function."""

    model_config = ConfigDict(extra="allow")

    refused_keys: ClassVar[tuple[str, ...]] = ()
    """Beginnings of keywords that the function takes, and that an experiment must not give it."""

    norm: Literal["group"] | None = None
    """With "group", each BatchNorm layer is replaced by a GroupNorm; by default the model stays as the function makes
    it."""
    norm_groups: Annotated[int, Field(ge=1)] | None = None
    """Groups of these GroupNorm layers; 8 by default."""

    @model_validator(mode="before")
    @classmethod
    def _name_the_nearest_key(cls, given: Any) -> Any:
        for key in given if isinstance(given, dict) else ():
            if str(key) not in cls.model_fields and str(key).startswith(cls.refused_keys):
                raise wrong(str(key), "models are built without downloads; give a file as model.weights instead")
        return given  # every other key is the function's

    @model_validator(mode="after")
    def _groups_need_group_norm(self) -> FactoryModel:
        if self.norm_groups is not None and self.norm is None:
            raise wrong("norm_groups", 'needs norm = "group"')
        return self

    def build(self, sample_shape: Shape, classes: int) -> nn.Module:
        module = self.make(sample_shape, classes)
        return module if self.norm is None else with_group_norm(module, self.norm_groups or GROUPS, self.name)

    @abstractmethod
    def make(self, sample_shape: Shape, classes: int) -> nn.Module:
        """The module as the function makes it."""

    def call(self, function: Any, arguments: dict[str, Any]) -> nn.Module:
        """The module that the function returns; InvalidExperiment if it refuses the arguments or returns another."""
        try:
            module = function(**arguments)
        except (TypeError, ValueError) as error:
            raise InvalidExperiment(f"model.name: {self.name} cannot be called: {error}") from error
        if not isinstance(module, nn.Module):
            raise InvalidExperiment(f"model.name: {self.name} returned {type(module).__name__}, not a torch.nn.Module")
        return module

    def unknown(self, close: Iterable[str], library: str) -> InvalidExperiment:
        """The mistake of a name that the library does not have; `close` are names like it."""
        prefix, _, name = self.name.partition(":")
        meant = ", ".join(f"{prefix}:{other}" for other in close)
        hint = f"; did you mean {meant}?" if meant else ""
        return InvalidExperiment(f"model.name: {library} has no model {name!r} for classification{hint}")
