"""local.groups: parameters with a learning rate and a weight decay of their own, as torch.optim's parameter groups.

The rate of a step becomes a row [1, Q], the schedule's rate times the factor of each entry, and optimizers take a rate
that is a tensor as it is. For weight decay see `group_decay`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field, model_validator
from torch import Tensor, nn

from fedopt.errors import InvalidExperiment
from fedopt.optimizers.base import Optimizer
from fedopt.optimizers.group_decay import decaying, row_of
from fedopt.patterns import matched
from fedopt.schedules.base import Factors
from fedopt.section import Section, wrong
from fedopt.vectors.layout import Layout, RowLayout


class ParameterGroup(Section):
    """A table of local.groups."""

    parameters: tuple[str, ...] = Field((), strict=False)
    """Patterns of the parameters' names, as in model.freeze."""
    lr_factor: float = Field(1.0, ge=0)
    """What every learning rate is multiplied by for these parameters."""
    weight_decay: float | None = Field(None, ge=0)
    """The weight decay of these parameters; that of the optimizer if it is absent."""

    @model_validator(mode="after")
    def _says_something(self) -> ParameterGroup:
        if not self.parameters:
            raise wrong("parameters", 'give patterns of parameters\' names, for example ["head.*"]')
        if not {"lr_factor", "weight_decay"} & self.model_fields_set:
            raise wrong("lr_factor", "give a group lr_factor, weight_decay or both")
        return self


@dataclass(frozen=True)
class Grouped:
    """The groups of an optimizer, for parameters of one layout."""

    factors: Factors | None
    """What rates are multiplied by; None where that is 1 for all parameters."""
    optimizer: Optimizer
    """The optimizer, with the weight decay of the groups."""


def grouped(optimizer: Optimizer, groups: Sequence[ParameterGroup], layout: RowLayout, like: Tensor) -> Grouped:
    """InvalidExperiment where the groups' patterns do not fit the parameters."""
    of_names = groups_by_name(groups, layout.layout.names)
    factors = None
    if changes_rates(groups):
        row = row_of({name: group.lr_factor for name, group in of_names.items()}, 1.0, layout, like)
        factors = Factors(row, _spans(of_names, layout))
    if not changes_decay(groups):
        return Grouped(factors, optimizer)
    decays = {name: group.weight_decay for name, group in of_names.items() if group.weight_decay is not None}
    return Grouped(factors, decaying(optimizer, decays))


def changes_rates(groups: Sequence[ParameterGroup]) -> bool:
    return any(group.lr_factor != 1 for group in groups)


def changes_decay(groups: Sequence[ParameterGroup]) -> bool:
    return any(group.weight_decay is not None for group in groups)


def groups_by_name(groups: Sequence[ParameterGroup], names: Sequence[str]) -> dict[str, ParameterGroup]:
    """The group of each parameter that is in one."""
    found: dict[str, ParameterGroup] = {}
    for group in groups:
        fitting = matched(group.parameters, names, "local.groups: no parameter")
        if not fitting:
            raise InvalidExperiment(f"local.groups: the patterns {list(group.parameters)} leave no parameter")
        twice = [name for name in names if name in fitting & found.keys()]
        if twice:
            raise InvalidExperiment(
                f'local.groups: {twice[0]} is in two groups; keep it out of one of them with "!{twice[0]}"'
            )
        found |= dict.fromkeys(fitting, group)
    return found


def _spans(groups: Mapping[str, ParameterGroup], layout: RowLayout) -> tuple[tuple[int, int, float], ...]:
    """(first, end, factor) of the stretches of a row with one factor; the gap behind a parameter goes with it."""
    found: list[tuple[int, int, float]] = []
    ends = [*layout.starts[1:], layout.width]
    for name, first, end in zip(layout.layout.names, layout.starts, ends, strict=True):
        factor = groups[name].lr_factor if name in groups else 1.0
        if found and found[-1][2] == factor:
            first = found.pop()[0]
        found.append((first, end, factor))
    return tuple(found)


def check_groups(groups: Sequence[ParameterGroup], module: nn.Module) -> None:
    """InvalidExperiment where the groups' patterns do not fit the module's trainable parameters."""
    if not groups:
        return
    trained = Layout.of(module).names
    frozen = [name for name, parameter in module.named_parameters() if not parameter.requires_grad]
    for pattern in (pattern for group in groups for pattern in group.parameters):
        if _fits(pattern, frozen) and not _fits(pattern, trained):
            raise InvalidExperiment(f"local.groups: {pattern!r} fits parameters that are frozen, and no others")
    groups_by_name(groups, trained)


def _fits(pattern: str, names: Collection[str]) -> bool:
    try:
        matched([pattern], names, "")
    except InvalidExperiment:
        return False
    return True
