"""nn.Conv2d on lanes: each window a column, all columns of a lane's batch one product.

Images lie [lanes, channels, height, B, width]. Windows are laid out along the width only: shifted against each other
along the height they are already runs in memory, so a kernel of kh rows is kh products that add up, on a kh-th of the
memory. Where that does not hold (a stride along the height), or is not worth the calls (few channels), windows are
laid out both ways and there is one product.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from clients.stacked.rule import Into, Rule
from clients.stacked.storage import product

IMAGES = (0, 2, 3, 1, 4)
"""[lanes, B, channels, height, width] -> [lanes, channels, height, B, width]"""
BACK = (0, 3, 1, 2, 4)

WORTH = 4
"""Products over fewer numbers than this are mostly overhead; it is channels times the width of the kernel."""


class Conv2dRule(Rule):
    def __init__(self, layer: nn.Conv2d, weight: str, bias: str | None) -> None:
        self._weight, self._bias = weight, bias
        self.names = (weight,) if bias is None else (weight, bias)
        self._kernel, self._stride, self._outputs = layer.kernel_size, layer.stride, layer.out_channels
        assert not isinstance(layer.padding, str)
        self._padding = layer.padding
        self.products = 0
        """Multiplications for one sample; known once it is prepared."""

    def prepare(self, inputs: Sequence[Tensor], wants_gradient: bool) -> Tensor:
        (x,) = inputs
        lanes, batch, channels, height, width = x.shape
        (kh, kw), (sh, sw), (ph, pw) = self._kernel, self._stride, self._padding
        high, wide = height + 2 * ph, width + 2 * pw
        out_high, out_wide = (high - kh) // sh + 1, (wide - kw) // sw + 1

        self._x, self._inner = x, None
        if ph or pw:
            # Its own for each width of batches: the border stays what it is.
            padded = self.scratch(f"padded {batch}", lanes, (channels, high, batch, wide)).zero_()
            self._inner = padded[:, :, ph : ph + height, :, pw : pw + width].permute(BACK)
            x = padded.permute(BACK)
        # Rows of windows: every row of the image once, or those of each row of the kernel by themselves.
        self._by_row = sh == 1 and channels * kw >= WORTH
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
        shifts = range(groups)
        matrix = self._columns.view(lanes, depth, rows * run)
        self._operands = [matrix[:, :, i * run : i * run + places] for i in shifts]

        w = self.weights[self._weight]
        self._w = w.permute(0, 3, 1, 2, 4) if self._by_row else w[:, None]  # [lanes, groups, out, ...]
        self._kernels = self.scratch("kernels", lanes, self._w.shape[1:])
        self._ws = [self._kernels[:, i].flatten(2) for i in shifts]
        self._dkernels = self.scratch("dkernels", lanes, self._w.shape[1:])
        self._dws = [self._dkernels[:, i].flatten(2) for i in shifts]

        self._b = None if self._bias is None else self.weights[self._bias][:, :, None]
        y = self.scratch("y", lanes, (self._outputs, out_high, batch, out_wide))
        self._y = y.view(lanes, self._outputs, places)
        self._dx = None
        if wants_gradient:
            self._dx = self.scratch("dx", lanes, (channels, height, batch, width))
            self._dcolumns = self.scratch("dcolumns", lanes, shape)
            dmatrix = self._dcolumns.view(lanes, depth, rows * run)
            self._doperands = [dmatrix[:, :, i * run : i * run + places] for i in shifts]
            self._landings: list[tuple[Tensor, Tensor]] = []
            for j in range(kw):
                across, from_across = _landing(j - pw, sw, width, out_wide)
                if self._by_row:
                    column = self._dcolumns[:, :, j, ph : ph + height]
                    self._landings.append((self._dx[..., across], column[..., from_across]))
                    continue
                for i in range(kh):
                    down, from_down = _landing(i - ph, sh, height, out_high)
                    column = self._dcolumns[:, :, i, j, from_down]
                    self._landings.append((self._dx[:, :, down, :, across], column[..., from_across]))
        return y.permute(BACK)

    def forward(self) -> None:
        if self._inner is not None:
            self._inner.copy_(self._x)
        self._columns.copy_(self._windows)
        self._kernels.copy_(self._w)
        if self._b is not None:
            self._y.copy_(self._b)
        keep = 0.0 if self._b is None else 1.0
        for kernel, operand in zip(self._ws, self._operands, strict=True):
            product(self._y, kernel, operand, keep)
            keep = 1.0

    def backward(self, gradient: Tensor, into: Into) -> Sequence[Tensor]:
        d = gradient.permute(IMAGES).view(self._y.shape)
        if self._dx is not None:
            if self._by_row:
                self._dcolumns.zero_()
            for kernel, operand in zip(self._ws, self._doperands, strict=True):
                product(operand, kernel.transpose(1, 2), d, keep=1.0 if self._by_row else 0.0)
            self._dx.zero_()
            for place, column in self._landings:
                place += column
        for kernel, operand in zip(self._dws, self._operands, strict=True):
            product(kernel, d, operand.transpose(1, 2))
        into.add(self._weight, self._dkernels.permute(0, 2, 3, 1, 4) if self._by_row else self._dkernels[:, 0])
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
