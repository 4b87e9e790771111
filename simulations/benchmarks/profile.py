"""Where the time of a step goes, and a bound on its speed: each part of a step is timed alone.

The parts are those that every implementation needs: gathering the samples, the layers' matrix products forward and
backward, and the optimizer's pass over its vectors. The rest of a step is calls, Python, the smaller layers, lanes that
end up alone, and the server's part of a round.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import cycle
from multiprocessing import get_context

import torch
from torch import Tensor, nn

from clients.lanes.packing import Packing
from clients.lanes.storage import Scratch
from clients.stacked.products import adding_product, in_one_thread, plain_product, rounding
from fedopt.device import choose_device, threads
from fedopt.experiment.experiment import Experiment
from fedopt.models.build import build_model
from fedopt.optimizers.base import Gradient
from fedopt.optimizers.sam import Sam
from fedopt.optimizers.sgd import Sgd
from fedopt.precision import on_gpu
from fedopt.schedules.base import Rates
from fedopt.vectors.layout import Layout
from simulations.benchmarks.engine import CLASSES, SAMPLES, SHAPE, Cell, experiment_of, seconds_of

TURNS, TURN_SECONDS = 7, 0.02
"""How often a part is timed, and for about how many seconds each. The fastest counts, because it is a bound."""

LARGE, COPIED = 1024, 2**26
"""Rows and columns of the product, and bytes of the copy, that measure the machine's peak rates."""


@dataclass(frozen=True)
class Part:
    """A part of a lane's step."""

    what: str
    seconds: float
    multiplications: int
    bytes: int
    """Bytes read and written, each number once."""

    @property
    def gflops(self) -> float:
        return 2e-9 * self.multiplications / self.seconds

    @property
    def gigabytes_a_second(self) -> float:
        return 1e-9 * self.bytes / self.seconds


@dataclass(frozen=True)
class Profile:
    """A step of one lane in one worker."""

    parts: tuple[Part, ...]
    step: float
    """Seconds of a step."""
    plain: float
    """Seconds of a step in the plain loop."""
    workers: int
    peak_gflops: float
    """Rate of a large product, on one core or the GPU."""
    peak_gigabytes_a_second: float
    """Rate of a large copy, bytes read and written."""

    @property
    def needed(self) -> float:
        """Seconds of the parts."""
        return sum(part.seconds for part in self.parts)

    @property
    def bound(self) -> float:
        """The ratio to the plain loop if a step took no longer than its parts."""
        return self.workers * self.plain / self.needed


def profile(cell: Cell) -> Profile:
    """Times the parts of the cell's step on its device, in as many processes at once; takes at most a minute."""
    if cell.workers == 1:
        found = [_timed(cell)]
    else:
        with ProcessPoolExecutor(cell.workers, mp_context=get_context("fork")) as pool:
            found = list(pool.map(_timed, [cell] * cell.workers))
    device = choose_device(cell.setting.device)
    with threads(1):
        square = torch.rand(LARGE, LARGE, device=device)
        source, out = torch.rand(COPIED // 4, device=device), torch.empty(COPIED // 4, device=device)
        multiplying = _seconds(lambda: torch.mm(square, square))
        copying = _seconds(lambda: out.copy_(source))
    return Profile(
        parts=tuple(
            replace(same[0], seconds=statistics.mean(part.seconds for part in same))
            for same in zip(*found, strict=True)
        ),
        step=cell.workers / cell.steps_per_second,
        plain=1 / cell.plain_steps_per_second,
        workers=cell.workers,
        peak_gflops=2e-9 * LARGE**3 / multiplying,
        peak_gigabytes_a_second=2e-9 * COPIED / copying,
    )


def _timed(cell: Cell) -> list[Part]:
    experiment = experiment_of(cell.model, cell.batch, cell.optimizer, cell.setting)
    products = experiment.run.products
    with torch.no_grad(), threads(1), in_one_thread(), rounding(products), on_gpu(products):
        return list(_parts(experiment, cell, choose_device(cell.setting.device)))


def _parts(experiment: Experiment, cell: Cell, device: torch.device) -> Iterator[Part]:
    module = build_model(experiment.model, SHAPE, CLASSES, seed=0).to(device)
    x = torch.rand(SAMPLES, *SHAPE, device=device)
    lanes, passes = cell.lanes, 2 if cell.optimizer == "sam" else 1
    rows = cycle(torch.randint(SAMPLES, (SAMPLES // 10, lanes * cell.batch), device=device))  # others every time
    gathered = torch.empty(lanes * cell.batch, *SHAPE, device=device)
    gathering = _seconds(lambda: torch.index_select(x, 0, next(rows), out=gathered)) / lanes
    yield Part("gather the samples", gathering, 0, 2 * 4 * cell.batch * x[0].numel())
    for number, (layer, inputs, outputs) in enumerate(_layers(module, x[: cell.batch])):
        ways = _by_matrices if isinstance(layer, nn.Linear) or cell.engine == "stacked" else _by_convolution
        for what, work, multiplications, numbers in ways(layer, inputs, outputs, lanes, to_inputs=number > 0):
            again = " (twice)" if passes > 1 else ""
            count = passes * multiplications
            yield Part(what + again, passes * min(map(_seconds, work)) / lanes, count, passes * 4 * numbers)
    theta = torch.zeros(lanes, Layout.of(module).size, device=device)
    size = 4 * theta.shape[1]
    optimizer = experiment.local.optimizer
    base = optimizer.base if isinstance(optimizer, Sam) else optimizer
    if not base.is_plain_descent:
        stepper, given = base.build(theta, Packing(Layout.of(module), theta)), _Given(torch.rand_like(theta))
        stepper.begin(lanes, Rates((), theta.dtype, theta.new_full((), experiment.local.lr)))
        vectors = 3 if isinstance(base, Sgd) else 7  # read and written; SGD adds the gradient to the velocity
        yield Part(f"{base.name}: vectors", _seconds(lambda: stepper.step(given)) / lanes, 0, vectors * size)
    if cell.optimizer == "scaffold":
        shift = torch.rand_like(theta)
        yield Part("scaffold: vectors", _seconds(lambda: theta.add_(shift, alpha=-0.01)) / lanes, 0, 3 * size)


_Ways = Iterator[tuple[str, list[Callable[[], object]], int, int]]
"""A part's name, ways to compute it for all lanes, and a lane's multiplications and numbers read and written."""


def _layers(module: nn.Module, x: Tensor) -> list[tuple[nn.Module, Tensor, Tensor]]:
    """The layers that multiply matrices, in order, with their inputs and outputs."""
    found: list[tuple[nn.Module, Tensor, Tensor]] = []
    hooks = [
        layer.register_forward_hook(lambda own, given, output: found.append((own, given[0], output)))
        for layer in module.modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    ]
    module(x)
    for hook in hooks:
        hook.remove()
    return found


def _by_matrices(layer: nn.Module, inputs: Tensor, outputs: Tensor, lanes: int, *, to_inputs: bool) -> _Ways:
    """Rows times weights, batched over lanes. The rows of a convolution are its windows, already gathered."""
    if isinstance(layer, nn.Linear):
        rows, depth, width = inputs.shape[0], layer.in_features, layer.out_features
    else:
        assert isinstance(layer, nn.Conv2d)
        rows, width = outputs.numel() // layer.out_channels, layer.out_channels
        depth = layer.weight[0].numel()
    scratch = Scratch(inputs)
    x, w, y = (
        scratch("x", lanes, (rows, depth)),
        scratch("w", lanes, (width, depth)),
        scratch("y", lanes, (rows, width)),
    )
    turned = scratch("turned", lanes, (width, rows))
    dx = scratch("dx", lanes, (rows, depth))
    for tensor in (x, w, y, turned):
        tensor.normal_()
    xt, wt, yt = (tensor.transpose(1, 2) for tensor in (x, w, y))
    name, each = f"{depth} x {width} on {rows}", rows * depth * width
    numbers = rows * depth + depth * width + rows * width
    yield f"{name}: forward", [plain_product(y, x, wt), plain_product(turned, w, xt)], each, numbers
    if to_inputs:
        yield f"{name}: to inputs", [plain_product(dx, y, w)], each, numbers
    into: list[Callable[[], object]] = [functools.partial(adding_product(w, a, x), 1.0, 1e-9) for a in (yt, turned)]
    yield f"{name}: to weights", into, each, numbers + depth * width


def _by_convolution(layer: nn.Module, inputs: Tensor, outputs: Tensor, lanes: int, *, to_inputs: bool) -> _Ways:
    """torch's own convolutions, one lane after the other."""
    assert isinstance(layer, nn.Conv2d)
    assert not isinstance(layer.padding, str)
    each = outputs.numel() * layer.weight[0].numel()
    numbers = inputs.numel() + layer.weight.numel() + outputs.numel()
    high, wide = outputs.shape[2:]
    name = f"{layer.in_channels} to {layer.out_channels} maps of {high} x {wide}"

    geometry = (layer.stride, layer.padding, layer.dilation, False, [0, 0], 1)

    def back(to: tuple[bool, bool, bool]) -> Callable[[], object]:
        def work() -> None:
            for _ in range(lanes):
                torch.ops.aten.convolution_backward(outputs, inputs, layer.weight, None, *geometry, to)

        return work

    yield f"{name}: forward", [lambda: [layer(inputs) for _ in range(lanes)]], each, numbers
    if to_inputs:
        yield f"{name}: to inputs", [back((True, False, False))], each, numbers
    yield f"{name}: to weights", [back((False, True, False))], each, numbers


class _Given(Gradient):
    """A gradient that costs nothing, for timing the optimizer's own pass over its vectors."""

    def __init__(self, gradient: Tensor) -> None:
        self._gradient = gradient

    def __call__(self) -> Tensor:
        return self._gradient

    def add_to(self, target: Tensor, keep: float, scale: float) -> None:
        pass

    def add_to_theta(self, scale: float) -> None:
        pass


def _seconds(work: Callable[[], object]) -> float:
    work()
    times = max(1, round(TURN_SECONDS / max(seconds_of(work), 1e-6)))
    return min(seconds_of(lambda: [work() for _ in range(times)]) for _ in range(TURNS)) / times
