"""Pooling of images on lanes, for windows that do not overlap and have no padding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from clients.lanes.storage import Scratch
from clients.stacked.convolution import BACK
from clients.stacked.rule import GradientTarget, Rule

aten = torch.ops.aten


class MaxPoolRule(Rule):
    """Width first, then height: of equal numbers the first in row-major order gets the gradient, as in torch."""

    def __init__(self, window: tuple[int, int]) -> None:
        self._window = window

    def prepare(self, inputs: Sequence[Tensor], wants_gradient: bool) -> Tensor:
        (x,) = inputs
        high, wide = self._window
        out_high, out_wide = x.shape[3] // high, x.shape[4] // wide
        rows = x[:, :, :, : out_high * high]
        self._across = _Fold([rows[..., j : j + out_wide * wide : wide] for j in range(wide)], "across", self.scratch)
        found = self._across.maximum
        self._down = _Fold([found[:, :, :, i::high] for i in range(high)], "down", self.scratch)
        self._dx = None
        if wants_gradient:
            self._dx = self.scratch.shaped_like("dx", x)
            self._rest = x.shape[3:] != (out_high * high, out_wide * wide)
            drows = self._dx[:, :, :, : out_high * high]
            self._dacross = [drows[..., j : j + out_wide * wide : wide] for j in range(wide)]
            dfound = self.scratch.shaped_like("dfound", found)
            self._dfound, self._ddown = dfound, [dfound[:, :, :, i::high] for i in range(high)]
        return self._down.maximum

    def forward(self) -> None:
        self._across.run()
        self._down.run()

    def backward(self, gradient: Tensor, into: GradientTarget) -> Sequence[Tensor]:
        if self._dx is None:
            return ()
        if self._rest:
            self._dx.zero_()
        self._down.back(gradient, self._ddown)
        self._across.back(self._dfound, self._dacross)
        return (self._dx,)


class _Fold:
    """The elementwise maximum of several tensors. Its gradient goes to the first tensor that has the maximum."""

    def __init__(self, parts: list[Tensor], name: str, scratch: Scratch) -> None:
        self._parts = parts
        self._steps = [scratch.shaped_like(f"{name} {place}", part) for place, part in enumerate(parts[1:])]
        self._own = scratch.shaped_like(f"{name} own", parts[0])
        self.maximum = self._steps[-1] if self._steps else parts[0]

    def run(self) -> None:
        best = self._parts[0]
        for part, step in zip(self._parts[1:], self._steps, strict=True):
            torch.maximum(best, part, out=step)
            best = step

    def back(self, gradient: Tensor, into: list[Tensor]) -> None:
        """Overwrites `gradient`."""
        for place in range(len(self._steps), 0, -1):
            before = self._steps[place - 2] if place > 1 else self._parts[0]
            torch.sub(self._parts[place], before, out=self._own)
            # The gradient where this part is larger than all before it; the earlier parts get the rest, exactly. It is
            # not written to `into` directly: the kernel is slow on strided memory.
            aten.threshold_backward.grad_input(gradient, self._own, 0, grad_input=self._own)
            into[place].copy_(self._own)
            torch.sub(gradient, self._own, out=gradient if place > 1 else into[0])
        if not self._steps:
            into[0].copy_(gradient)


class AveragePoolRule(Rule):
    def __init__(self, window: tuple[int, int] | None) -> None:
        """A window of None is the whole image."""
        self._window = window

    def prepare(self, inputs: Sequence[Tensor], wants_gradient: bool) -> Tensor:
        (x,) = inputs
        lanes, batch, channels, height, width = x.shape
        high, wide = self._window or (height, width)
        out_high, out_wide = height // high, width // wide
        self._parts = self._tiles(x, high, wide, out_high, out_wide)
        self._share = 1.0 / (high * wide)
        # Whole images are averaged by one call, tiles offset by offset.
        self._x = x if self._window is None else None
        self._y = self.scratch("y", lanes, (channels, out_high, batch, out_wide)).permute(BACK)
        self._dx = None
        if wants_gradient:
            self._dx = self.scratch.shaped_like("dx", x)
            self._rest = (height, width) != (out_high * high, out_wide * wide)
            self._dparts = self._tiles(self._dx, high, wide, out_high, out_wide)
        return self._y

    @staticmethod
    def _tiles(x: Tensor, high: int, wide: int, out_high: int, out_wide: int) -> list[Tensor]:
        whole = x[:, :, :, : out_high * high, : out_wide * wide]
        return [whole[:, :, :, i::high, j::wide] for i in range(high) for j in range(wide)]

    def forward(self) -> None:
        if self._x is not None:
            torch.mean(self._x, (3, 4), keepdim=True, out=self._y)
            return
        self._y.copy_(self._parts[0])
        for part in self._parts[1:]:
            self._y.add_(part)
        self._y.mul_(self._share)

    def backward(self, gradient: Tensor, into: GradientTarget) -> Sequence[Tensor]:
        if self._dx is None:
            return ()
        gradient.mul_(self._share)
        if self._x is not None:
            self._dx.copy_(gradient.expand(self._dx.shape))
        else:
            if self._rest:
                self._dx.zero_()  # every time: the rule before this one may overwrite its gradient
            for part in self._dparts:
                part.copy_(gradient)
        return (self._dx,)
