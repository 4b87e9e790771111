"""nn.Conv2d on lanes: each window a column, all columns of a lane's batch one product.

Images lie [lanes, channels, height, B, width]: the product gives that order, and rows of windows that are shifted
against each other are long runs in memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from clients.stacked.rule import Into, Rule
from clients.stacked.storage import product

IMAGES = (0, 2, 3, 1, 4)
"""[lanes, B, channels, height, width] -> [lanes, channels, height, B, width]"""
BACK = (0, 3, 1, 2, 4)


class Conv2dRule(Rule):
    def __init__(self, layer: nn.Conv2d, weight: str, bias: str | None) -> None:
        self._weight, self._bias = weight, bias
        self.names = (weight,) if bias is None else (weight, bias)
        self._kernel, self._stride, self._outputs = layer.kernel_size, layer.stride, layer.out_channels
        assert not isinstance(layer.padding, str)
        self._padding = layer.padding

    def prepare(self, inputs: Sequence[Tensor], wants_gradient: bool) -> Tensor:
        (x,) = inputs
        lanes, batch, channels, height, width = x.shape
        (kh, kw), (sh, sw), (ph, pw) = self._kernel, self._stride, self._padding
        high, wide = height + 2 * ph, width + 2 * pw
        out_high, out_wide = (high - kh) // sh + 1, (wide - kw) // sw + 1
        columns, places = channels * kh * kw, out_high * batch * out_wide

        self._x, self._inner = x, None
        if ph or pw:
            padded = self.scratch("padded", lanes, (channels, high, batch, wide)).zero_()
            self._inner = padded[:, :, ph : ph + height, :, pw : pw + width].permute(BACK)
            x = padded.permute(BACK)
        windows = x.unfold(3, kh, sh).unfold(4, kw, sw)  # [lanes, B, channels, out_high, out_wide, kh, kw]
        self._windows = windows.permute(0, 2, 5, 6, 3, 1, 4)
        shape = (channels, kh, kw, out_high, batch, out_wide)
        self._columns = self.scratch("columns", lanes, shape)
        self._matrix = self._columns.view(lanes, columns, places)

        self._w = self.weights[self._weight].flatten(2)
        self._b = None if self._bias is None else self.weights[self._bias][:, :, None]
        y = self.scratch("y", lanes, (self._outputs, out_high, batch, out_wide))
        self._y = y.view(lanes, self._outputs, places)
        self._dx = self._dcolumns = None
        if wants_gradient:
            self._dx = self.scratch("dx", lanes, (channels, height, batch, width))
            self._dcolumns = self.scratch("dcolumns", lanes, shape)
            self._landings: list[tuple[Tensor, Tensor]] = []
            for i in range(kh):
                for j in range(kw):
                    rows, from_rows = _landing(i - ph, sh, height, out_high)
                    columns_, from_columns = _landing(j - pw, sw, width, out_wide)
                    column = self._dcolumns[:, :, i, j]
                    self._landings.append((self._dx[:, :, rows, :, columns_], column[:, :, from_rows, :, from_columns]))
        return y.permute(BACK)

    def forward(self) -> None:
        if self._inner is not None:
            self._inner.copy_(self._x)
        self._columns.copy_(self._windows)
        if self._b is None:
            product(self._y, self._w, self._matrix)
        else:
            self._y.copy_(self._b)
            product(self._y, self._w, self._matrix, keep=1.0)

    def backward(self, gradient: Tensor, into: Into) -> Sequence[Tensor]:
        d = gradient.permute(IMAGES).view(self._y.shape)
        if self._dx is not None and self._dcolumns is not None:
            product(self._dcolumns.view(self._matrix.shape), self._w.transpose(1, 2), d)
            self._dx.zero_()
            for place, column in self._landings:
                place += column
        into.add_product(self._weight, d, self._matrix.transpose(1, 2))
        if self._bias is not None:
            into.add(self._bias, d.sum(2))
        return () if self._dx is None else (self._dx.permute(BACK),)


def _landing(shift: int, stride: int, length: int, outputs: int) -> tuple[slice, slice]:
    """Along one side of the image: which inputs an offset of the kernel reads that are no padding, and for which
    outputs. Output o reads input o * stride + shift."""
    first = max(0, -(shift // stride))
    last = min(outputs - 1, (length - 1 - shift) // stride)
    if last < first:
        return slice(0, 0), slice(0, 0)
    start = first * stride + shift
    return slice(start, last * stride + shift + 1, stride), slice(first, last + 1)
