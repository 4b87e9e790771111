"""The experiment's [channel] section: which stages vectors go through between client and server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from fedopt.channel import STAGES
from fedopt.channel.base import Stage
from fedopt.channel.channel import Channel
from fedopt.family import as_member
from fedopt.section import Section, wrong


def _stage(given: Any) -> Any:
    """A table with the stage's `name` and settings, its bare name, or the stage itself."""
    table = {"name": given} if isinstance(given, str) else given
    if isinstance(table, Mapping) and "name" not in table:
        raise wrong("name", 'a stage is a table with its name, for example {name = "package.module:Class"}')
    return as_member(STAGES, "")(table)


class ChannelSettings(Section):
    stages: tuple[Annotated[SerializeAsAny[Stage], BeforeValidator(_stage)], ...] = Field((), strict=False)
    """The stages in the order in which a client sends through them; a simulation sends and receives too."""

    @model_validator(mode="after")
    def _compose(self) -> Self:
        for place, stage in enumerate(self.stages):
            reason = stage.why_not_after(self.stages[:place])
            if reason is not None:
                raise wrong("stages", f"{stage.name} cannot come in place {place + 1}: {reason}")
        return self

    @property
    def channel(self) -> Channel:
        return Channel(self.stages)
