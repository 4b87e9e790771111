"""Three backends from lanes of parameters to lanes of gradients, with the same numbers up to rounding.

`stacked` computes all lanes at once by rules written for each layer: the fastest, for models made of layers it knows.
`each` runs a replica of the module per lane through autograd, for any other model on a CPU. `vmap` runs all lanes as
one by torch.func, for any other model on a GPU, where a launch costs more than the arithmetic.

With `stacked` and `each` on a CPU a client gets the same bits whatever runs beside it. `vmap` does not promise that:
the batched kernels that it calls round by the number of lanes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

import torch
from torch import Tensor

from clients.lanes.autograd import EachLane
from clients.lanes.batches import LaneBatch
from clients.lanes.draws import LaneDraws
from clients.lanes.packing import Packing
from clients.lanes.vmap import VmapLanes
from clients.stacked.backend import StackedLanes
from fedopt.errors import InvalidExperiment
from fedopt.precision import Products
from fedopt.task import Task
from fedopt.vectors.layout import Layout

Backend = Literal["stacked", "each", "vmap"]


class Ascent(Protocol):
    """Gradients uphill of theta, which stays as it is."""

    def accumulate(self, batch: LaneBatch, into: Tensor, keep: float, scale: float, rho: float, counts: bool) -> None:
        """into <- keep * into + scale * gradients at theta + rho g / |g|, where g are those at theta.

        The norm |g| is one for all parameters of a lane; `counts` goes for the losses at theta.
        """
        ...


class LaneGradients(Protocol):
    """Gradients of the mean loss of each lane's minibatch, at the present contents of theta."""

    packing: Packing
    """How a flat vector [P] lies in a row [Q]."""
    theta: Tensor
    """The lanes, [lanes, Q]; whoever steps them writes here."""
    classes: int | None
    """How many classes there are, where it wants targets as so many zeros and ones, too."""

    def __call__(self, batch: LaneBatch, counts: bool = True) -> Tensor:
        """The gradients, [active, Q]; they may be overwritten by the next call."""
        ...

    def accumulate(self, batch: LaneBatch, into: Tensor, keep: float, scale: float, counts: bool = True) -> None:
        """into <- keep * into + scale * gradients, the active lanes of [lanes, Q].

        `into` may be theta itself: a step of gradient descent that needs no tensor for the gradient. `counts` says
        whether the losses belong to those that are added up.
        """
        ...

    def uphill(self, batch: LaneBatch) -> Ascent | None:
        """A way to gradients uphill that is shorter than to go there; None where there is none for such a batch."""
        ...

    def settle(self) -> None:
        """Adds up the losses of the calls so far, where that has been put off."""
        ...

    def holds(self) -> object:
        """What the last call worked in, for whoever will have its memory used again without asking."""
        ...

    def losses(self) -> Tensor:
        """Sums over the calls that counted since this was last asked, [lanes]: a round's, at its end."""
        ...


BACKENDS: dict[Backend, Callable[[Task, Layout, Tensor, int, LaneDraws | None], LaneGradients]] = {
    "stacked": StackedLanes,
    "each": EachLane,
    "vmap": VmapLanes,
}


def lane_gradients(
    backend: Backend, task: Task, layout: Layout, like: Tensor, lanes: int, draws: LaneDraws | None = None
) -> LaneGradients:
    """The backend of that name with room for `lanes` lanes, of the type and on the device of `like`.

    `draws` keys the random numbers of a task that draws some.
    """
    return BACKENDS[backend](task, layout, like, lanes, draws)


def check_products(products: Products, backend: Backend, data: Tensor) -> None:
    """InvalidExperiment if such products cannot be had on this backend, for data of this type where they are."""
    if products == "full":
        return
    device = data.device.type
    if data.dtype != torch.float32:
        raise InvalidExperiment(f"run.products: {products} rounds float32; leave run.dtype out")
    if device == "mps" or (products == "tf32" and device == "cpu" and backend != "stacked"):
        where = f"on {device}" + ("" if device == "mps" else f" with run.backend = {backend}")
        raise InvalidExperiment(f"run.products: there is no {products} {where}; leave it out")
