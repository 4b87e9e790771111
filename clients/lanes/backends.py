"""Three backends that compute the gradients of all lanes, with the same numbers up to rounding.

`stacked` computes all lanes at once with hand-written rules for each layer. It is the fastest, for models made of
layers that have a rule. `each` runs one replica of the module per lane through autograd, for any other model on a CPU.
`vmap` runs all lanes as one computation by torch.func, for any other model on a GPU, where launching a kernel costs
more than the arithmetic.

With `stacked` and `each` on a CPU a client's result is the same to the bit whichever lanes run beside it. `vmap` does
not promise that: the rounding of its batched kernels depends on the number of lanes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, runtime_checkable

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


class LaneGradients(Protocol):
    """Gradients of the mean loss of each lane's minibatch, at the present contents of theta."""

    packing: Packing
    """Maps a flat vector [P] to a row [Q]."""
    theta: Tensor
    """The parameters of the lanes, [lanes, Q]. Optimizers write here."""

    def __call__(self, batch: LaneBatch, counts: bool = True) -> Tensor:
        """The gradients, [active, Q]; the next call may overwrite them."""
        ...

    def accumulate(self, batch: LaneBatch, into: Tensor, keep: float, scale: float, counts: bool = True) -> None:
        """into <- keep * into + scale * gradients, for the active lanes of `into` [lanes, Q].

        `into` may be theta itself: a step of gradient descent that needs no tensor for the gradient. `counts` says
        whether the losses of this call are added to the sums that `losses` returns.
        """
        ...

    def losses(self) -> Tensor:
        """Sums of the counted losses since the last call of this method, [lanes]."""
        ...


class PerturbedGradients(Protocol):
    """SAM's gradients, at theta + rho g / |g|, without moving the weights."""

    def accumulate(self, batch: LaneBatch, into: Tensor, keep: float, scale: float, rho: float, counts: bool) -> None:
        """into <- keep * into + scale * gradients at theta + rho g / |g|, where g are the gradients at theta.

        |g| is one norm over all parameters of a lane. `counts` is about the losses at theta.
        """
        ...


@runtime_checkable
class PerturbsInPlace(Protocol):
    """Optional for a backend: SAM's gradients without moving the weights."""

    def perturbed(self, batch: LaneBatch) -> PerturbedGradients | None:
        """None where moving the weights is faster for such a batch."""
        ...


@runtime_checkable
class DefersLosses(Protocol):
    """Optional for a backend: it computes the losses of several steps together, in buffers that it reuses."""

    def flush_losses(self) -> None:
        """Adds up the losses of the calls so far."""
        ...

    def buffers(self) -> object:
        """A reference to the buffers of the last call. They stay allocated as long as the caller keeps it."""
        ...


BACKENDS: dict[Backend, Callable[[Task, Layout, Tensor, int, LaneDraws | None], LaneGradients]] = {
    "stacked": StackedLanes,
    "each": EachLane,
    "vmap": VmapLanes,
}


def lane_gradients(
    backend: Backend, task: Task, layout: Layout, like: Tensor, lanes: int, draws: LaneDraws | None = None
) -> LaneGradients:
    """The backend of that name for at most `lanes` lanes, with the dtype and device of `like`.

    `draws` keys the random numbers of a task that draws some.
    """
    return BACKENDS[backend](task, layout, like, lanes, draws)


def check_products(products: Products, backend: Backend, data: Tensor) -> None:
    """InvalidExperiment if this backend has no such products for data of this dtype on this device."""
    if products == "full":
        return
    device = data.device.type
    if data.dtype != torch.float32:
        raise InvalidExperiment(f"run.products: {products} rounds float32; leave run.dtype out")
    if device == "mps" or (products == "tf32" and device == "cpu" and backend != "stacked"):
        where = f"on {device}" + ("" if device == "mps" else f" with run.backend = {backend}")
        raise InvalidExperiment(f"run.products: there is no {products} {where}; leave it out")
