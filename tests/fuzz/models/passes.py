"""Forward passes on vectors that only eager autograd is sure to understand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.fuzz.models.base import vector


def _inplace_relu(net: Any, x: Tensor) -> Any:
    h = net.fc1(x)
    return net.head(net.fc2(net.relu(h)) + net.fc3(h))


def _alias(net: Any, x: Tensor) -> Any:
    h = net.fc1(x)
    before = h
    h += torch.tanh(net.fc2(h * 1.0))
    return net.head(h + net.fc3(before))


def _no_grad_body(net: Any, x: Tensor) -> Any:
    with torch.no_grad():
        h = torch.tanh(net.fc2(torch.tanh(net.fc1(x))))
    return net.head(torch.tanh(net.fc3(h)))


def _detached(net: Any, x: Tensor) -> Any:
    h = torch.tanh(net.fc1(x))
    return net.head(torch.tanh(net.fc2(h.detach())) + net.fc3(h))


def _inplace_chain(net: Any, x: Tensor) -> Any:
    return net.head(net.fc3(net.fc2(net.fc1(x)).tanh_()).mul_(0.5).add_(0.1))


def _broadcast_sum(net: Any, x: Tensor) -> Any:
    h = torch.tanh(net.fc1(x))
    return net.head(torch.tanh(net.fc3(h + net.fc2(h)[:, :1])))


def _scalar_sum(net: Any, x: Tensor) -> Any:
    return net.head(net.fc3(torch.tanh(net.fc2(torch.tanh(net.fc1(x)) + 1)) * 2)) + 0.5


def _twice(net: Any, x: Tensor) -> Any:
    h = torch.tanh(net.fc2(torch.tanh(net.fc1(x))))
    return net.head(torch.tanh(net.fc3(net.fc3(torch.tanh(net.fc2(h))))))


def _train_branch(net: Any, x: Tensor) -> Any:
    z = net.head(net.fc3(torch.tanh(net.fc2(torch.tanh(net.fc1(x))))))
    return z if net.training else z.flip(1)


def _batch_centred(net: Any, x: Tensor) -> Any:
    h = torch.tanh(net.fc1(x))
    h = h - h.mean(0, keepdim=True) if net.training else h
    return net.head(torch.tanh(net.fc2(h)) + net.fc3(h))


def _unused(net: Any, x: Tensor) -> Any:
    return net.head(torch.tanh(net.fc1(x)))


def _control_flow(net: Any, x: Tensor) -> Any:
    h = torch.tanh(net.fc2(torch.tanh(net.fc1(x))))
    if bool((x.detach()[:, 0] > 0).all()):
        h = torch.sin(h)
    return net.head(net.fc3(h))


def _tensor_hook(net: Any, x: Tensor) -> Any:
    h = torch.tanh(net.fc2(torch.tanh(net.fc1(x))))
    if h.requires_grad:
        h.register_hook(lambda gradient: 0.5 * gradient)  # type: ignore[no-untyped-call]
    return net.head(net.fc3(h))


def _concatenated(net: Any, x: Tensor) -> Any:
    h = torch.tanh(net.fc1(x))
    half = h.shape[1] // 2
    return net.head(torch.cat([net.fc2(h)[:, :half], torch.tanh(net.fc3(h))[:, half:]], dim=1))


def _functional(net: Any, x: Tensor) -> Any:
    h = F.silu(F.linear(x, net.fc1.weight, net.fc1.bias))
    return net.head(F.gelu(F.linear(h, net.fc2.weight.t(), net.fc2.bias)) * torch.sigmoid(net.fc3(h)))


def _straight_through(net: Any, x: Tensor) -> Any:
    h = torch.tanh(net.fc1(x))
    return net.head(net.fc2((h.round(decimals=1) - h).detach() + h) + net.fc3(h))


def _standardised(net: Any, x: Tensor) -> Any:
    h = net.fc2(torch.tanh(net.fc1(x)))
    return net.head(torch.tanh(net.fc3(h)) / (1 + h.square().mean(1, keepdim=True)).sqrt())


class _Doubled(torch.autograd.Function):
    """2 x, with a backward pass of its own."""

    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient


def _own_function(net: Any, x: Tensor) -> Any:
    doubled: Tensor = _Doubled.apply(torch.tanh(net.fc1(x)))
    return net.head(net.fc3(torch.tanh(net.fc2(doubled))))


inplace_relu = vector(_inplace_relu)
alias = vector(_alias)
no_grad_body = vector(_no_grad_body)
detached = vector(_detached)
inplace_chain = vector(_inplace_chain)
broadcast_sum = vector(_broadcast_sum)
scalar_sum = vector(_scalar_sum)
twice = vector(_twice)
train_branch = vector(_train_branch)
batch_centred = vector(_batch_centred)
unused = vector(_unused)
control_flow = vector(_control_flow)
tensor_hook = vector(_tensor_hook)
concatenated = vector(_concatenated)
functional = vector(_functional)
straight_through = vector(_straight_through)
standardised = vector(_standardised)
own_function = vector(_own_function)
