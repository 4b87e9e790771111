"""How exactly matrix products are computed: in float32, or from operands rounded to what a GPU multiplies fast.

The one source of error is the rounding of the operands, to nearest: each is off by at most 2^-11 of itself under tf32
and 2^-8 under bf16, so a product of matrices by at most (2u + u^2) |a| |b|, u being that. Sums stay in float32. (Where
autograd multiplies, bf16 is torch's autocast, which rounds results as well.)
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
"""How many of float32's bits tf32 has no place for."""


@contextmanager
def on_gpu(products: Products) -> Iterator[None]:
    """Within, a GPU multiplies float32 matrices in tf32 if that is asked for, and else in float32.

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
    """x, float32, as an operand of such products, still as float32 and with its gaps in memory."""
    found = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device)
    if products == "bf16":
        return found.copy_(x.to(torch.bfloat16))
    bits = found.copy_(x).view(torch.int32)
    # Half a unit of the last place that stays, less a little where that place is even: ties go to even.
    bits += (1 << TF32_DROPS - 1) - 1 + (bits >> TF32_DROPS & 1)
    bits &= -(1 << TF32_DROPS)
    return found
