"""The base of every section of an experiment: frozen, strict, and helpful about a mistyped key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from fedopt.errors import InvalidExperiment
from fedopt.explain import UNKNOWN_KEY, explain
from fedopt.registry import nearest


class Section(BaseModel):
    """Validated settings. Strict: a string is no number, a fraction no count."""

    # JSON by default writes null for inf and nan: an experiment with such a setting would not read back the same.
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, ser_json_inf_nan="constants"
    )

    renamed: ClassVar[Mapping[str, str]] = {}
    """Keys that older versions had, each with its new name."""

    @model_validator(mode="before")
    @classmethod
    def _name_the_nearest_key(cls, given: Any) -> Any:
        if isinstance(given, Mapping):
            for key in given:
                if key in cls.renamed:
                    raise wrong(str(key), f"this key is called {cls.renamed[key]} now")
                if key not in cls.model_fields:
                    raise wrong(str(key), f"{UNKNOWN_KEY}{nearest(str(key), cls.model_fields)}")
        return given

    def given(self) -> dict[str, Any]:
        """The keys that were given, with their values; those left to their defaults are not among them."""
        return {key: getattr(self, key) for key in self.model_fields_set}

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy, with the keys of `update` as if they had been given at first: InvalidExperiment if they are wrong.

        Pydantic's own takes any update unseen. Defaults that followed from other keys are found anew.
        """
        if not update:
            return super().model_copy(deep=deep)
        changed = self.remade({**self.given(), **update})
        return changed.model_copy(deep=True) if deep else changed

    @classmethod
    def remade(cls, given: Mapping[str, Any]) -> Self:
        """A section from these keys; InvalidExperiment says which are wrong."""
        try:
            return cls(**given)
        except ValidationError as error:
            raise InvalidExperiment(explain(error)) from error


def wrong(key: str, sentence: str) -> PydanticCustomError:
    """A mistake to be reported at `key` of the section whose validator raises this."""
    return PydanticCustomError("wrong_key", "{sentence}", {"key": key, "sentence": sentence})
