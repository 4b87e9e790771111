"""What a layer must know to run on lanes: [lanes, B, ...] in, [lanes, B, ...] out, and the way back.

A rule is told shapes rarely and runs often. `prepare` lays out its buffers for so many lanes and so wide a batch;
`forward` and `backward` then only fill them. Shapes are those of torch with lanes in front; how the numbers of a lane
lie in memory is the rule's own affair (images lie [lanes, channels, height, B, width]).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from clients.lanes.storage import Scratch
from clients.stacked.products import adding_product


class NotStackable(Exception):
    """Says, in a clause, what of a module has no rule."""


class Into:
    """Where gradients go: each target becomes keep * target + scale * gradient. Never a tensor for the gradient."""

    def __init__(self, targets: Mapping[str, Tensor], keep: float, scale: float) -> None:
        """`targets` are [lanes, *shape] by the names of the parameters."""
        self._targets, self._keep, self._scale = targets, keep, scale
        # A vector is a matrix of one row; a parameter's dimensions beyond the first are one.
        self._matrices = {
            name: target[:, None] if target.ndim == 2 else target.flatten(2) for name, target in targets.items()
        }
        self._ways: dict[str, tuple[Tensor, Tensor, Callable[[], object]]] = {}

    def add_product(self, name: str, a: Tensor, b: Tensor) -> None:
        """The gradient is a @ b, a matrix; what is asked for again with the same tensors is laid out once."""
        known = self._ways.get(name)
        if known is None or known[0] is not a or known[1] is not b:
            known = a, b, adding_product(self._matrices[name], a, b, self._keep, self._scale)
            self._ways[name] = known
        known[2]()

    def add_rows(self, name: str, rows: Tensor, ones: Tensor | None) -> None:
        """The gradient is the sum of rows [lanes, rows, width].

        Given `ones` [lanes, 1, rows], it is had by a product so small that torch does it without BLAS, where vectors
        are no other backend.
        """
        if ones is None:
            self.add(name, rows.sum(1))
        else:
            self._matrices[name].baddbmm_(ones, rows, beta=self._keep, alpha=self._scale)

    def add(self, name: str, gradient: Tensor) -> None:
        target = self._targets[name]
        if self._keep == 0.0:
            torch.mul(gradient, self._scale, out=target)
            return
        if self._keep != 1.0:
            target.mul_(self._keep)
        target.add_(gradient, alpha=self._scale)


class Nowhere(Into):
    """For a way back that is only after what the layers are told."""

    def __init__(self) -> None:
        super().__init__({}, 0.0, 0.0)

    def add_product(self, name: str, a: Tensor, b: Tensor) -> None:
        pass

    def add_rows(self, name: str, rows: Tensor, ones: Tensor | None) -> None:
        pass

    def add(self, name: str, gradient: Tensor) -> None:
        pass


class Rule(ABC):
    """One layer on lanes."""

    takes = 1
    """How many inputs it has."""
    names: tuple[str, ...] = ()
    """The parameters it owns, by their names in the layout."""
    weights: Mapping[str, Tensor]
    """Their present values, [lanes, *shape], for as many lanes as `prepare` was told."""

    def bind(self, scratch: Scratch) -> None:
        self.scratch = scratch

    @abstractmethod
    def prepare(self, inputs: Sequence[Tensor], wants_gradient: bool) -> Tensor:
        """Takes the buffers that the inputs will be in; returns that of the output, filled by `forward`.

        `wants_gradient` says whether `backward` shall give the gradients of the inputs.
        """

    @abstractmethod
    def forward(self) -> None: ...

    @abstractmethod
    def backward(self, gradient: Tensor, into: Into) -> Sequence[Tensor]:
        """Gradients of the inputs from that of the output, which may be overwritten; of parameters into `into`.

        A parameter may be its own target, so it is read before its gradient is added.
        """
