"""Layers of every kind, with settings and connections of every kind."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.fuzz.models.base import Net, Shape

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
