"""Modules with forward passes that are awkward for anything but eager autograd, as factories for experiments.

Each is named `tests.fuzz.models:NAME` in an experiment. All are small, deterministic and free of kinks that a rounding
error would tip over often.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

Shape = tuple[int, ...]
Forward = Callable[[Any, Tensor], Any]
"""From a module with layers by name, and its input, to its output: layers of torch return Any."""

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu-inplace": lambda: nn.ReLU(inplace=True),
    "gelu": nn.GELU,
    "gelu-tanh": lambda: nn.GELU("tanh"),
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "leaky": nn.LeakyReLU,
    "softplus": nn.Softplus,
    "elu": nn.ELU,
    "identity": nn.Identity,
}


class Net(nn.Module):
    """Layers by name, and a forward pass that is a function of them and the input."""

    def __init__(self, forward: Forward, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self._forward(self, x)
        return output


def dense(
    sample_shape: Shape, classes: int, hidden: list[int], activation: str, norm: bool = False, bias: bool = True
) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    width = math.prod(sample_shape)
    for following in hidden:
        layers += [nn.Linear(width, following, bias=bias)] + [nn.LayerNorm(following)] * norm
        layers.append(ACTIVATIONS[activation]())
        width = following
    return nn.Sequential(*layers, nn.Linear(width, classes))


def convolutional(
    sample_shape: Shape,
    classes: int,
    channels: list[int],
    activation: str = "relu",
    pool: str = "max",
    groups: int = 0,
    bias: bool = True,
    kernel: int = 3,
) -> nn.Module:
    """Convolutions that keep the size, each pooled where there is room; ends in a global mean or a flat layer."""
    pools: dict[str, Callable[[], nn.Module]] = {"max": lambda: nn.MaxPool2d(2), "average": lambda: nn.AvgPool2d(2)}
    layers: list[nn.Module] = []
    before, height, width = sample_shape
    for after in channels:
        layers.append(nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=bias))
        layers += [nn.GroupNorm(groups, after)] if groups else []
        layers.append(ACTIVATIONS[activation]())
        height, width = (side + 2 * (kernel // 2) - kernel + 1 for side in (height, width))
        if pool in pools and min(height, width) >= 2:
            layers.append(pools[pool]())
            height, width = height // 2, width // 2
        before = after
    if pool == "global":
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * height * width, classes))


def odd_convolution(sample_shape: Shape, classes: int, kind: str) -> nn.Module:
    """Settings of convolutions and pools that are not those of every textbook."""
    channels, _, _ = sample_shape
    layers: dict[str, list[nn.Module]] = {
        "groups": [nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1, groups=2)],
        "dilation": [nn.Conv2d(channels, 3, 3, padding=2, dilation=2), nn.Tanh()],
        "stride": [nn.Conv2d(channels, 3, 3, stride=2, padding=1), nn.Tanh()],
        "even": [nn.Conv2d(channels, 3, 2), nn.ReLU()],
        "oblong": [nn.Conv2d(channels, 3, (1, 3), padding=(0, 1)), nn.SiLU()],
        "reflect": [nn.Conv2d(channels, 3, 3, padding=1, padding_mode="reflect"), nn.ReLU()],
        "overlap": [nn.Conv2d(channels, 3, 1), nn.Tanh(), nn.MaxPool2d(3, stride=1, padding=1)],
        "ceil": [nn.Conv2d(channels, 3, 1), nn.Tanh(), nn.MaxPool2d(2, ceil_mode=True)],
        "padded-mean": [nn.Conv2d(channels, 3, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2, padding=1)],
        "grid": [nn.Conv2d(channels, 3, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2)],
        "instance": [nn.Conv2d(channels, 3, 3, padding=1, bias=False), nn.InstanceNorm2d(3, affine=True), nn.Tanh()],
    }
    body = nn.Sequential(*layers[kind], nn.Flatten())
    with torch.no_grad():
        width = body(torch.zeros(1, *sample_shape)).shape[1]
    return nn.Sequential(body, nn.Linear(width, classes))


def preactivation_block(sample_shape: Shape, classes: int, norm: bool = True) -> nn.Module:
    """ReLU(inplace=True) whose input is used again, beside it: the shortcut carries what ReLU left."""
    channels, height, width = sample_shape

    def forward(net: Any, x: Tensor) -> Any:
        h = net.norm(net.stem(x))
        for path in (net.first, net.second):
            h = h + path(net.relu(h))
        return net.head(h.flatten(1))

    return Net(
        forward,
        stem=nn.Conv2d(channels, 4, 3, padding=1, bias=False),
        norm=nn.GroupNorm(2, 4) if norm else nn.Identity(),
        relu=nn.ReLU(inplace=True),
        first=nn.Conv2d(4, 4, 3, padding=1),
        second=nn.Conv2d(4, 4, 3, padding=1),
        head=nn.Linear(4 * height * width, classes),
    )


def _vector(forward: Forward, width: int = 6) -> Callable[[Shape, int], nn.Module]:
    """A factory of modules on vectors, with layers fc1 to fc3, relu (in place) and head."""

    def factory(sample_shape: Shape, classes: int) -> nn.Module:
        return Net(
            lambda net, x: forward(net, x.flatten(1)),
            fc1=nn.Linear(math.prod(sample_shape), width),
            fc2=nn.Linear(width, width),
            fc3=nn.Linear(width, width),
            relu=nn.ReLU(inplace=True),
            head=nn.Linear(width, classes),
        )

    return factory


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


inplace_relu = _vector(_inplace_relu)
alias = _vector(_alias)
no_grad_body = _vector(_no_grad_body)
detached = _vector(_detached)
inplace_chain = _vector(_inplace_chain)
broadcast_sum = _vector(_broadcast_sum)
scalar_sum = _vector(_scalar_sum)
twice = _vector(_twice)
train_branch = _vector(_train_branch)
batch_centred = _vector(_batch_centred)
unused = _vector(_unused)
control_flow = _vector(_control_flow)
tensor_hook = _vector(_tensor_hook)
concatenated = _vector(_concatenated)
functional = _vector(_functional)
straight_through = _vector(_straight_through)
standardised = _vector(_standardised)
own_function = _vector(_own_function)


def _layers(sample_shape: Shape, classes: int) -> nn.Sequential:
    """Flatten, Linear, Tanh, Linear: every layer has a rule."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(sample_shape), 5), nn.Tanh(), nn.Linear(5, classes))


def frozen_layer(sample_shape: Shape, classes: int) -> nn.Module:
    module = _layers(sample_shape, classes)
    module[1].requires_grad_(False)
    return module


def frozen_bias(sample_shape: Shape, classes: int) -> nn.Module:
    module = _layers(sample_shape, classes)
    module[1].get_parameter("bias").requires_grad_(False)
    return module


def root_hook(sample_shape: Shape, classes: int) -> nn.Module:
    module = _layers(sample_shape, classes)
    module.register_forward_hook(lambda _module, _inputs, output: 2 * output.flip(1))
    return module


def root_pre_hook(sample_shape: Shape, classes: int) -> nn.Module:
    module = _layers(sample_shape, classes)
    module.register_forward_pre_hook(lambda _module, inputs: (inputs[0] * 0.5,))
    return module


def layer_hook(sample_shape: Shape, classes: int) -> nn.Module:
    module = _layers(sample_shape, classes)
    module[1].register_forward_hook(lambda _module, _inputs, output: output + 1)
    return module


def inner_hook(sample_shape: Shape, classes: int) -> nn.Module:
    """A hook on a module that is a container."""
    inner = nn.Sequential(nn.Linear(math.prod(sample_shape), 5), nn.Tanh())
    inner.register_forward_hook(lambda _module, _inputs, output: output * 3)
    return nn.Sequential(nn.Flatten(), inner, nn.Linear(5, classes))


def _halve(_module: nn.Module, inner: Any, _outer: Any) -> tuple[Tensor, ...]:
    return tuple(0.5 * gradient for gradient in inner)


def _double(_module: nn.Module, outer: Any) -> tuple[Tensor, ...]:
    return tuple(2 * gradient for gradient in outer)


def backward_hook(sample_shape: Shape, classes: int) -> nn.Module:
    module = _layers(sample_shape, classes)
    module[2].register_full_backward_hook(_halve)
    return module


def backward_pre_hook(sample_shape: Shape, classes: int) -> nn.Module:
    module = _layers(sample_shape, classes)
    module[3].register_full_backward_pre_hook(_double)
    return module


def root_backward_pre_hook(sample_shape: Shape, classes: int) -> nn.Module:
    module = _layers(sample_shape, classes)
    module.register_full_backward_pre_hook(_double)
    return module


def _quarter(gradient: Tensor) -> Tensor:
    return 0.25 * gradient


def parameter_hook(sample_shape: Shape, classes: int) -> nn.Module:
    module = _layers(sample_shape, classes)
    module[1].get_parameter("weight").register_hook(_quarter)  # type: ignore[no-untyped-call]
    return module


def _own_forward(layer: nn.Linear, x: Tensor) -> Tensor:
    return 2 * F.linear(x, layer.weight, layer.bias)


def patched_method(sample_shape: Shape, classes: int) -> nn.Module:
    module = _layers(sample_shape, classes)
    module[1].forward = types.MethodType(_own_forward, module[1])
    return module


def patched_closure(sample_shape: Shape, classes: int) -> nn.Module:
    """A function that holds the layer itself: a copy of the module calls it with the original's weights."""
    module = _layers(sample_shape, classes)
    layer = module[1]
    assert isinstance(layer, nn.Linear)
    layer.forward = lambda x: _own_forward(layer, x)  # type: ignore[method-assign, assignment]
    return module


class Scaled(nn.Linear):
    """A subclass of a layer that has a rule."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * super().forward(x)


def subclassed(sample_shape: Shape, classes: int) -> nn.Module:
    module = _layers(sample_shape, classes)
    module[1] = Scaled(math.prod(sample_shape), 5)
    return module


class Constants(nn.Module):
    """Parameters and buffers of the root itself, outside any layer."""

    scale: Tensor

    def __init__(self, sample_shape: Shape, classes: int) -> None:
        super().__init__()
        self.inner = _layers(sample_shape, classes)
        self.offset = nn.Parameter(torch.zeros(classes))
        self.temperature = nn.Parameter(torch.tensor(1.5))
        self.register_buffer("scale", torch.linspace(0.5, 1.5, classes))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.inner(x) * self.scale * self.temperature
        return scores + self.offset


def constants(sample_shape: Shape, classes: int) -> nn.Module:
    return Constants(sample_shape, classes)


def weight_norm(sample_shape: Shape, classes: int) -> nn.Module:
    module = _layers(sample_shape, classes)
    parametrizations.weight_norm(module[1])
    return module


def tied(sample_shape: Shape, classes: int) -> nn.Module:
    """An autoencoder's tie: two layers with one weight."""
    module = Net(
        lambda net, x: net.head(torch.tanh(net.second(torch.tanh(net.first(torch.tanh(net.stem(x.flatten(1)))))))),
        stem=nn.Linear(math.prod(sample_shape), 4),
        first=nn.Linear(4, 4),
        second=nn.Linear(4, 4),
        head=nn.Linear(4, classes),
    )
    first, second = module.get_submodule("first"), module.get_submodule("second")
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    second.weight = first.weight
    return module


def broadcast_pool(sample_shape: Shape, classes: int) -> nn.Module:
    """A sum of an image and its means."""
    channels, height, width = sample_shape
    return Net(
        lambda net, x: net.head((net.conv(x) + net.pool(net.conv(x))).tanh().flatten(1)),
        conv=nn.Conv2d(channels, 3, 3, padding=1),
        pool=nn.AdaptiveAvgPool2d(1),
        head=nn.Linear(3 * height * width, classes),
    )


def gated_pool(sample_shape: Shape, classes: int) -> nn.Module:
    """Broadcast sums where each side is computed once, and a rule exists for every layer."""
    channels, height, width = sample_shape

    def forward(net: Any, x: Tensor) -> Any:
        h = net.conv(x)
        return net.head(torch.flatten(net.pool(h) + h, 1))

    return Net(
        forward,
        conv=nn.Conv2d(channels, 3, 3, padding=1),
        pool=nn.AdaptiveAvgPool2d(1),
        head=nn.Linear(3 * height * width, classes),
    )


def recurrent(sample_shape: Shape, classes: int, kind: str, layers: int = 1) -> nn.Module:
    """Sequences [B, T, F]; a recurrent layer puts out more than a tensor."""
    kinds: dict[str, Callable[..., nn.Module]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
    return Net(
        lambda net, x: net.head(net.body(x)[0][:, -1]),
        body=kinds[kind](sample_shape[-1], 4, num_layers=layers, batch_first=True),
        head=nn.Linear(4, classes),
    )


def attention(sample_shape: Shape, classes: int, kind: str) -> nn.Module:
    """Attention over a sequence, by the layer or the whole encoder block; without dropout."""

    def by_layer(net: Any, x: Tensor) -> Any:
        h = net.stem(x)
        return net.head((h + net.body(h, h, h, need_weights=False)[0]).mean(1))

    def by_block(net: Any, x: Tensor) -> Any:
        return net.head(net.body(net.stem(x)).mean(1))

    body: nn.Module
    if kind == "layer":
        body = nn.MultiheadAttention(4, 2, batch_first=True)
    else:
        body = nn.TransformerEncoderLayer(4, 2, dim_feedforward=6, dropout=0.0, batch_first=True)
    return Net(
        by_layer if kind == "layer" else by_block,
        stem=nn.Linear(sample_shape[-1], 4),
        body=body,
        head=nn.Linear(4, classes),
    )


def embedding(sample_shape: Shape, classes: int, vocabulary: int, kind: str) -> nn.Module:
    """Tokens, which arrive as floats; "tied" scores classes by the embedding itself."""
    table = nn.Embedding(max(vocabulary, classes), 4, padding_idx=0 if kind == "padded" else None)
    if kind == "tied":
        return Net(
            lambda net, x: net.fc(net.table(x.long()).mean(1)).tanh() @ net.table.weight[:classes].t(),
            table=table,
            fc=nn.Linear(4, 4),
        )
    return Net(
        lambda net, x: net.head(torch.tanh(net.table(x.long()).flatten(1))),
        table=table,
        head=nn.Linear(4 * math.prod(sample_shape), classes),
    )


class Writer(nn.Module):
    """Writes a buffer in its forward pass, and reads what earlier calls have written."""

    seen: Tensor

    def __init__(self, sample_shape: Shape, classes: int) -> None:
        super().__init__()
        self.inner = _layers(sample_shape, classes)
        self.register_buffer("seen", torch.zeros(classes))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.inner(x)
        with torch.no_grad():
            self.seen.mul_(0.9).add_(scores.mean(0), alpha=0.1)
        return scores - self.seen


class Counter(nn.Module):
    """Every call but the first changes what the next one does."""

    def __init__(self, sample_shape: Shape, classes: int) -> None:
        super().__init__()
        self.inner = _layers(sample_shape, classes)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        scores: Tensor = self.inner(x)
        return scores / self.calls


def _noise(net: Any, x: Tensor) -> Any:
    h = torch.tanh(net.fc1(x))
    if net.training:
        h = h + 0.1 * torch.randn_like(h)
    return net.head(torch.tanh(net.fc3(torch.tanh(net.fc2(h)))))


def _functional_dropout(net: Any, x: Tensor) -> Any:
    h = F.dropout(torch.tanh(net.fc1(x)), 0.3, net.training)
    return net.head(torch.tanh(net.fc3(F.dropout(torch.tanh(net.fc2(h)), 0.5, net.training))))


def _shuffled(net: Any, x: Tensor) -> Any:
    h = torch.tanh(net.fc2(torch.tanh(net.fc1(x))))
    order = torch.randperm(h.shape[1]) if net.training else torch.arange(h.shape[1])
    return net.head(torch.tanh(net.fc3(h[:, order])))


def _numpy_noise(net: Any, x: Tensor) -> Any:
    h = torch.tanh(net.fc2(torch.tanh(net.fc1(x))))
    return net.head(torch.tanh(net.fc3(h * float(np.random.rand() if net.training else 0.5))))  # noqa: NPY002


noise = _vector(_noise)
functional_dropout = _vector(_functional_dropout)
shuffled = _vector(_shuffled)
numpy_noise = _vector(_numpy_noise)


def dropout_layer(sample_shape: Shape, classes: int) -> nn.Module:
    width = math.prod(sample_shape)
    return nn.Sequential(nn.Flatten(), nn.Linear(width, 8), nn.ReLU(), nn.Dropout(0.4), nn.Linear(8, classes))


def writer(sample_shape: Shape, classes: int) -> nn.Module:
    return Writer(sample_shape, classes)


def counter(sample_shape: Shape, classes: int) -> nn.Module:
    return Counter(sample_shape, classes)


def batch_norm(sample_shape: Shape, classes: int) -> nn.Module:
    width = math.prod(sample_shape)
    return nn.Sequential(nn.Flatten(), nn.Linear(width, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, classes))


def attention_dropout(sample_shape: Shape, classes: int) -> nn.Module:
    return Net(
        lambda net, x: net.head(net.body(net.stem(x)).mean(1)),
        stem=nn.Linear(sample_shape[-1], 4),
        body=nn.TransformerEncoderLayer(4, 2, dim_feedforward=6, dropout=0.2, batch_first=True),
        head=nn.Linear(4, classes),
    )
