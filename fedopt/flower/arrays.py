"""A model's ArrayRecord and the flat vector [P] of its trained parameters.

A state_dict holds more than what an algorithm updates. Its entries are of four kinds:

    trained     parameters with requires_grad: they are the vector x, in the module's order
    tied        other names of the same parameters
    buffers     for example BatchNorm's running statistics: the server averages them, as Flower's FedAvg does
    the rest    frozen parameters: they travel down and never change
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from flwr.app import Array, ArrayRecord
from torch import Tensor, nn

from fedopt.errors import InvalidExperiment
from fedopt.vectors.layout import Layout


@dataclass(frozen=True)
class Entries:
    """Which arrays of a model's ArrayRecord are which."""

    layout: Layout
    """Of the trained parameters."""
    tied: Mapping[str, str]
    """Further names of trained parameters, each with the name that the layout has."""
    buffers: tuple[str, ...]
    """Buffers with fractional numbers, which are averaged."""
    counters: tuple[str, ...]
    """Buffers with whole numbers, of which the largest counts."""

    @classmethod
    def of(cls, module: nn.Module) -> Entries:
        layout = Layout.of(module)
        parameters = dict(module.named_parameters())
        name_of = {id(parameters[name]): name for name in layout.names}
        every = module.named_parameters(remove_duplicate=False)
        tied = {name: name_of[id(parameter)] for name, parameter in every if name_of.get(id(parameter), name) != name}
        stored = module.state_dict()
        buffers = {name: buffer for name, buffer in module.named_buffers() if name in stored}
        return cls(
            layout,
            tied,
            tuple(name for name, buffer in buffers.items() if buffer.is_floating_point()),
            tuple(name for name, buffer in buffers.items() if not buffer.is_floating_point()),
        )

    @classmethod
    def in_record(cls, arrays: ArrayRecord) -> Entries:
        """What a record holds if nothing else is known: every array of fractional numbers is trained."""
        shapes = {name: torch.Size(array.shape) for name, array in arrays.items() if "float" in array.dtype}
        counters = tuple(name for name in arrays if name not in shapes)
        return cls(Layout(tuple(shapes), tuple(shapes.values())), {}, (), counters)

    def check(self, arrays: ArrayRecord) -> None:
        """InvalidExperiment if the record lacks one of these arrays, or has it with another shape."""
        for name, shape in zip(self.layout.names, self.layout.shapes, strict=True):
            found = tuple(arrays[name].shape) if name in arrays else None
            if found != tuple(shape):
                raise InvalidExperiment(
                    f"the model's parameter {name} is of shape {tuple(shape)}, "
                    f"and initial_arrays {'lacks it' if found is None else f'has it with {found}'}; "
                    "give the strategy the model whose state_dict you start from"
                )

    def read(self, arrays: ArrayRecord) -> Tensor:
        """x, [P]."""
        return flat(arrays, self.layout.names)

    def read_buffers(self, arrays: ArrayRecord, like: ArrayRecord) -> tuple[Tensor, dict[str, int]]:
        """The averaged buffers as one vector in float64, and the counters; ValueError if shapes differ from `like`."""
        for name in (*self.buffers, *self.counters):
            if tuple(arrays[name].shape) != tuple(like[name].shape):
                raise ValueError(f"{name} is of shape {tuple(arrays[name].shape)}")
        values = {name: torch.from_numpy(arrays[name].numpy()) for name in (*self.buffers, *self.counters)}
        joined = torch.cat([torch.zeros(0), *(values[name].double().reshape(-1) for name in self.buffers)])
        return joined, {name: int(values[name].max()) for name in self.counters if values[name].numel()}

    def write(self, arrays: ArrayRecord, x: Tensor, buffers: Tensor | None, counters: Mapping[str, int]) -> ArrayRecord:
        """A copy of the record with x [P], and with buffers and counters where they are given."""
        changed = dict(arrays.items())
        for name, value in self.layout.split(x).items():
            changed[name] = as_array(value)
        for name, original in self.tied.items():
            changed[name] = changed[original]
        if buffers is not None:
            sizes = [torch.Size(arrays[name].shape).numel() for name in self.buffers]
            for name, part in zip(self.buffers, torch.split(buffers, sizes), strict=True):
                like = torch.from_numpy(arrays[name].numpy())
                changed[name] = as_array(part.view(like.shape).to(like.dtype))
        for name, count in counters.items():
            like = torch.from_numpy(arrays[name].numpy())
            changed[name] = as_array(torch.full_like(like, count))
        return ArrayRecord(changed)


def flat(arrays: ArrayRecord, names: Iterable[str]) -> Tensor:
    """The arrays of these names, one after the other."""
    parts = [torch.from_numpy(arrays[name].numpy()).reshape(-1) for name in names]
    kinds = {str(part.dtype).removeprefix("torch.") for part in parts}
    if len(kinds) != 1:
        raise InvalidExperiment(
            f"the trained parameters are of {' and '.join(sorted(kinds)) or 'no type'}; fedopt's strategies need one "
            "floating-point type for all of them"
        )
    return torch.cat(parts)


def as_array(value: Tensor) -> Array:
    return Array(value.detach().cpu().contiguous().numpy())


def as_record(vectors: Mapping[str, Tensor]) -> ArrayRecord:
    return ArrayRecord({name: as_array(vector) for name, vector in vectors.items()})


def as_vectors(record: ArrayRecord, like: Tensor | None = None) -> dict[str, Tensor]:
    """Copies of the record's arrays (Flower's are read-only), with the dtype and on the device of `like` if given."""
    found = {name: torch.from_numpy(array.numpy()).clone() for name, array in record.items()}
    return found if like is None else {name: vector.to(like) for name, vector in found.items()}
