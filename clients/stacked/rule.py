"""The contract of a layer on lanes: [lanes, B, ...] in, [lanes, B, ...] out, and the backward pass.

Shapes change rarely and a rule runs often. `prepare` allocates its buffers for one number of lanes and one batch width;
`forward` and `backward` then only fill them. Shapes are torch's with lanes in front. Each rule chooses the memory
layout of its output (that of images is [lanes, channels, height, B, width]).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from clients.lanes.storage import Scratch
from clients.stacked.products import adding_product


class NotStackable(Exception):
    """A part of a module has no rule; the message is a clause that says which."""


class GradientTarget:
    """Receives gradients: each target becomes keep * target + scale * gradient, without a tensor for the gradient."""

    keep: float
    scale: float

    def __init__(self, targets: Mapping[str, Tensor]) -> None:
        """`targets` [lanes, *shape] by parameter name."""
        self._targets = targets
        # A vector becomes a matrix of one column; the dimensions of a parameter after the first are merged.
        self._matrices = {
            name: target[:, None] if target.ndim == 2 else target.flatten(2) for name, target in targets.items()
        }
        self._products: dict[str, tuple[Tensor, Tensor, Callable[[float, float], object]]] = {}

    def add_product(self, name: str, a: Tensor, b: Tensor) -> None:
        """The gradient is a @ b, a matrix. The product is prepared once for the same two tensors."""
        known = self._products.get(name)
        if known is None or known[0] is not a or known[1] is not b:
            known = self._products[name] = a, b, adding_product(self._matrices[name], a, b)
        known[2](self.keep, self.scale)

    def add_rows(self, name: str, rows: Tensor, ones: Tensor | None) -> None:
        """The gradient is the sum of rows [lanes, rows, width].

        With `ones` [lanes, 1, rows] it is computed as a product, which must be so small that torch does it without
        BLAS: BLAS would compute it with another kernel for vectors.
        """
        if ones is None:
            self.add(name, rows.sum(1))
        else:
            self._matrices[name].baddbmm_(ones, rows, beta=self.keep, alpha=self.scale)

    def add(self, name: str, gradient: Tensor) -> None:
        target = self._targets[name]
        if self.keep == 0.0:
            torch.mul(gradient, self.scale, out=target)
            return
        if self.keep != 1.0:
            target.mul_(self.keep)
        target.add_(gradient, alpha=self.scale)


class DiscardGradients(GradientTarget):
    """For a backward pass that needs only the gradients of the layers' outputs."""

    def __init__(self) -> None:
        super().__init__({})

    def add_product(self, name: str, a: Tensor, b: Tensor) -> None:
        pass

    def add_rows(self, name: str, rows: Tensor, ones: Tensor | None) -> None:
        pass

    def add(self, name: str, gradient: Tensor) -> None:
        pass


class Rule(ABC):
    """One layer on lanes."""

    takes = 1
    """The number of inputs."""
    names: tuple[str, ...] = ()
    """The names of its parameters in the layout."""
    weights: Mapping[str, Tensor]
    """Its parameters by name, [lanes, *shape], for the lanes of `prepare`."""

    def bind(self, scratch: Scratch) -> None:
        self.scratch = scratch

    @abstractmethod
    def prepare(self, inputs: Sequence[Tensor], wants_gradient: bool) -> Tensor:
        """Takes the buffers of the inputs and returns the buffer of the output, which `forward` fills.

        `wants_gradient` says whether `backward` must return the gradients of the inputs.
        """

    @abstractmethod
    def forward(self) -> None: ...

    @abstractmethod
    def backward(self, gradient: Tensor, into: GradientTarget) -> Sequence[Tensor]:
        """The gradients of the inputs, from the gradient of the output, which may be overwritten.

        The gradients of the parameters are added to `into`. A parameter may be its own target, so it must be read
        before its gradient is added.
        """
