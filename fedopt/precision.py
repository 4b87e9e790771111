"""The precision of matrix products: float32, or operands rounded to formats that a GPU multiplies faster.

The only error is the rounding of the operands, to nearest: the relative error u of an operand is at most 2^-11 with
tf32 and 2^-8 with bf16, so that of a matrix product is at most (2u + u^2) |a| |b|. Sums stay in float32. (With
autograd, bf16 is torch's autocast, which rounds results as well.)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

Products = Literal["full", "tf32", "bf16"]

ROUND_OFF = {"tf32": 2.0**-11, "bf16": 2.0**-8}
"""The largest relative error of an operand."""

TF32_DROPS = 13
"""Bits of float32 that tf32 drops."""


@contextmanager
def on_gpu(products: Products) -> Iterator[None]:
    """Makes a GPU multiply float32 matrices in tf32 if `products` says so, and in float32 otherwise.

    torch's own default is tf32 for convolutions and float32 for the rest.
    """
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    _allow(products == "tf32", products == "tf32")
    try:
        yield
    finally:
        _allow(*before)


def _allow(in_products: bool, in_convolutions: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = in_products
    torch.backends.cudnn.allow_tf32 = in_convolutions


def rounded(x: Tensor, products: Products) -> Tensor:
    """x [float32], rounded as an operand of such products; the result is float32 with the same strides."""
    found = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)
    if products == "bf16":
        return found.copy_(x.to(torch.bfloat16))
    bits = found.copy_(x).view(torch.int32)
    # Adds half a unit of the last kept place, slightly less where that place is even: ties go to even.
    bits += (1 << TF32_DROPS - 1) - 1 + (bits >> TF32_DROPS & 1)
    bits &= -(1 << TF32_DROPS)
    return found
