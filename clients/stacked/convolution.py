"""nn.Conv2d on lanes: each window is a column, and all columns of a lane's batch are one matrix product.

Images are stored as [lanes, channels, height, B, width]. Windows are unfolded along the width first. Windows that are
shifted along the height are then contiguous in memory, so each row of a kernel is multiplied with such a run. The
gradient of the images is added up in the same way, row after row of the kernel. If there are no such runs (a stride
along the height), or if the products would be too small (few channels), windows are unfolded along both sides at once.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from clients.stacked.products import plain_product, product
from clients.stacked.rule import GradientTarget, Rule

IMAGES = (0, 2, 3, 1, 4)
"""[lanes, B, channels, height, width] -> [lanes, channels, height, B, width]"""
BACK = (0, 3, 1, 2, 4)

LEAST_LENGTH = 4
"""A product whose sum has fewer terms, channels times kernel width, is mostly overhead."""


class Conv2dRule(Rule):
    def __init__(self, layer: nn.Conv2d, weight: str, bias: str | None) -> None:
        self._weight, self._bias = weight, bias
        self.names = (weight,) if bias is None else (weight, bias)
        self._kernel, self._stride, self._outputs = layer.kernel_size, layer.stride, layer.out_channels
        assert not isinstance(layer.padding, str)
        self._padding = layer.padding
        self.products = 0
        """Multiplications for one sample, after `prepare`."""

    def prepare(self, inputs: Sequence[Tensor], wants_gradient: bool) -> Tensor:
        (x,) = inputs
        lanes, batch, channels, height, width = x.shape
        (kh, kw), (sh, sw), (ph, pw) = self._kernel, self._stride, self._padding
        high, wide = height + 2 * ph, width + 2 * pw
        out_high, out_wide = (high - kh) // sh + 1, (wide - kw) // sw + 1

        self._x, self._inner = x, None
        if ph or pw:
            # One buffer for each batch width, so that the border stays zero.
            padded = self.scratch(f"padded {batch}", lanes, (channels, high, batch, wide)).zero_()
            self._inner = padded[:, :, ph : ph + height, :, pw : pw + width].permute(BACK)
            x = padded.permute(BACK)
        # Rows of windows: every row of the image once, or one set for each row of the kernel.
        self._by_row = sh == 1 and channels * kw >= LEAST_LENGTH
        self.products = self._outputs * channels * kh * kw * out_high * out_wide
        groups, rows = (kh, high) if self._by_row else (1, out_high)
        windows = x.unfold(4, kw, sw)  # [lanes, B, channels, high, out_wide, kw]
        if self._by_row:
            self._windows = windows.permute(0, 2, 5, 3, 1, 4)
            shape: tuple[int, ...] = (channels, kw, rows, batch, out_wide)
        else:
            self._windows = windows.unfold(3, kh, sh).permute(0, 2, 6, 5, 3, 1, 4)
            shape = (channels, kh, kw, rows, batch, out_wide)
        self._columns = self.scratch("columns", lanes, shape)
        depth, run, places = channels * kh * kw // groups, batch * out_wide, out_high * batch * out_wide
        matrix = self._columns.view(lanes, depth, rows * run)
        self._operand = matrix
        self._shifted: Tensor | None = None
        if groups > 1:
            spread = self.scratch("spread", lanes, (groups, depth, places))
            self._spread, self._operand = spread, spread.flatten(1, 2)
            steps = (matrix.stride(0), run, matrix.stride(1), 1)
            self._shifted = matrix.as_strided(spread.shape, steps, matrix.storage_offset())
        self._operand_transposed = self._operand.transpose(1, 2)

        w = self.weights[self._weight]
        self._w = w.permute(0, 1, 3, 2, 4) if self._by_row else w[:, :, None]  # [lanes, out, groups, ...]
        self._kernels = self.scratch("kernels", lanes, self._w.shape[1:])
        self._w_matrix = self._kernels.flatten(2)
        self._dkernels = self.scratch("dkernels", lanes, self._w.shape[1:])
        self._dw_matrix = self._dkernels.flatten(2)
        self._dw = self._dkernels.permute(0, 1, 3, 2, 4) if self._by_row else self._dkernels[:, :, 0]

        self._b = None if self._bias is None else self.weights[self._bias][:, :, None]
        y = self.scratch("y", lanes, (self._outputs, out_high, batch, out_wide))
        self._y = y.view(lanes, self._outputs, places)
        self._multiply = plain_product(self._y, self._w_matrix, self._operand)
        self._gradient: Tensor | None = None
        self._dx = None
        if wants_gradient:
            self._dx = self.scratch("dx", lanes, (channels, height, batch, width))
            self._dcolumns = self.scratch("dcolumns", lanes, shape)
            dmatrix = self._dcolumns.view(lanes, depth, rows * run)
            self._rows = [
                (self._kernels[:, :, i].flatten(2).transpose(1, 2), dmatrix[:, :, i * run : i * run + places])
                for i in range(groups)
            ]
            self._overlaps: list[tuple[Tensor, Tensor]] = []
            for j in range(kw):
                across, from_across = _overlap(j - pw, sw, width, out_wide)
                if self._by_row:
                    column = self._dcolumns[:, :, j, ph : ph + height]
                    self._overlaps.append((self._dx[..., across], column[..., from_across]))
                    continue
                for i in range(kh):
                    down, from_down = _overlap(i - ph, sh, height, out_high)
                    column = self._dcolumns[:, :, i, j, from_down]
                    self._overlaps.append((self._dx[:, :, down, :, across], column[..., from_across]))
        return y.permute(BACK)

    def forward(self) -> None:
        if self._inner is not None:
            self._inner.copy_(self._x)
        self._columns.copy_(self._windows)
        if self._shifted is not None:
            self._spread.copy_(self._shifted)
        self._kernels.copy_(self._w)
        self._multiply()
        if self._b is not None:
            self._y.add_(self._b)

    def backward(self, gradient: Tensor, into: GradientTarget) -> Sequence[Tensor]:
        if gradient is not self._gradient:  # the same buffer every time but the first
            self._gradient, self._d = gradient, gradient.permute(IMAGES).view(self._y.shape)
            self._multiply_back = plain_product(self._dw_matrix, self._d, self._operand_transposed)
        d = self._d
        if self._dx is not None:
            if self._by_row:
                self._dcolumns.zero_()
            for kernel, row in self._rows:
                product(row, kernel, d, keep=1.0 if self._by_row else 0.0)
            self._dx.zero_()
            for place, column in self._overlaps:
                place += column
        self._multiply_back()
        into.add(self._weight, self._dw)
        if self._bias is not None:
            into.add(self._bias, d.sum(2))
        return () if self._dx is None else (self._dx.permute(BACK),)


def _overlap(shift: int, stride: int, length: int, outputs: int) -> tuple[slice, slice]:
    """Along one side of the image: the inputs outside the padding that one offset of the kernel reads, and the outputs
    that read them. Output o reads input o * stride + shift."""
    first = max(0, -(shift // stride))
    last = min(outputs - 1, (length - 1 - shift) // stride)
    if last < first:
        return slice(0, 0), slice(0, 0)
    start = first * stride + shift
    return slice(start, last * stride + shift + 1, stride), slice(first, last + 1)
