"""The rules of the stacked backend against autograd, on random shapes, and which models take that backend."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from clients.lanes.batches import LaneBatch
from clients.lanes.choice import choose_backend
from clients.lanes.packing import Packing
from clients.stacked import loss as loss_on_lanes
from clients.stacked.backend import StackedLanes
from fedopt.errors import InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.models.build import build_model
from fedopt.task import Task
from fedopt.vectors.layout import Layout

CLASSES = 3

sizes = st.integers(1, 4)


@st.composite
def convolutions(draw: st.DrawFn) -> nn.Module:
    kernel = (draw(sizes), draw(sizes))
    stride = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    padding = (draw(st.integers(0, kernel[0] - 1)), draw(st.integers(0, kernel[1] - 1)))
    return nn.Conv2d(2, draw(sizes), kernel, stride, padding, bias=draw(st.booleans()))


LAYERS: dict[str, st.SearchStrategy[nn.Module]] = {
    "conv2d": convolutions(),
    "relu": st.just(nn.ReLU()),
    "tanh": st.just(nn.Tanh()),
    "sigmoid": st.just(nn.Sigmoid()),
    "silu": st.just(nn.SiLU()),
    "gelu": st.sampled_from(["none", "tanh"]).map(nn.GELU),
    "max-pool": st.tuples(sizes, sizes).map(nn.MaxPool2d),
    "average-pool": st.tuples(sizes, sizes).map(nn.AvgPool2d),
    "whole-image": st.just(nn.AdaptiveAvgPool2d(1)),
    "group-norm": st.tuples(st.sampled_from([1, 2]), st.booleans()).map(
        lambda own: nn.GroupNorm(own[0], 2, affine=own[1])
    ),
    "layer-norm": st.booleans().map(lambda affine: nn.LayerNorm((5, 6), elementwise_affine=affine)),
    "identity": st.just(nn.Identity()),
    "relu-then-pool": st.just(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))),
}


class Between(nn.Module):
    """A layer on images between two convolutions, so that it has a gradient to give and to take."""

    def __init__(self, layer: nn.Module, shortcut: bool) -> None:
        super().__init__()
        self.before = nn.Conv2d(1, 2, 1)
        self.layer, self.shortcut = layer, shortcut
        with torch.no_grad():
            channels, height, width = layer.double()(torch.zeros(1, 2, 5, 6, dtype=torch.float64)).shape[1:]
        self.after = nn.Conv2d(channels, 2, 1, bias=False)
        self.head = nn.Linear(2 * height * width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        y = self.after(self.layer(x))
        if self.shortcut:
            y = x + y
        logits: Tensor = self.head(torch.flatten(y, 1))
        return logits


def randomise(module: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return module


def agree(module: nn.Module, x: Tensor, counts: list[int], seed: int = 0) -> None:
    """Gradients and losses of lanes with weights of their own, against autograd on each alone."""
    lanes, width = x.shape[:2]
    layout = Layout.of(module)
    generator = torch.Generator().manual_seed(seed)
    flat = torch.randn(lanes, layout.size, generator=generator, dtype=torch.float64)
    y = torch.randint(0, CLASSES, (lanes, width), generator=generator)
    stacked = StackedLanes(Task(module), layout, flat, lanes)
    stacked.theta.copy_(stacked.packing.pack(flat))
    real = torch.arange(width) < torch.tensor(counts)[:, None]
    rows, weights = torch.arange(lanes * width), real * width / torch.tensor(counts, dtype=torch.float64)[:, None]
    batch = LaneBatch(x.reshape(-1, *x.shape[2:]), rows, y, weights, np.array(counts))
    gradients = stacked(batch).clone()
    losses = stacked.losses()
    found = stacked.packing.unpack(gradients)
    assert stacked(batch).equal(gradients)  # buffers that are used a second time
    with patch.object(loss_on_lanes, "FEW_CLASSES", 0):  # without one-hot targets
        assert stacked(batch).equal(gradients)
    for lane, count in enumerate(counts):
        views = {name: view.clone().requires_grad_() for name, view in layout.split(flat[lane]).items()}
        outputs = torch.func.functional_call(module, views, (x[lane, :count],))
        loss = F.cross_entropy(outputs, y[lane, :count])
        alone = torch.autograd.grad(loss, list(views.values()), allow_unused=True, materialize_grads=True)
        expected = torch.cat([gradient.reshape(-1) for gradient in alone])
        assert torch.allclose(losses[lane], loss.detach(), rtol=1e-12)
        scale = float(expected.abs().max()) + 1e-300
        # Not tighter: normalizing what is nearly constant divides rounding by as little as sqrt(1e-5).
        assert float((found[lane] - expected).abs().max()) <= 1e-10 * max(scale, 1.0)


@pytest.mark.parametrize("name", LAYERS)
@given(data=st.data())
def test_a_layer_on_images_has_the_gradients_of_autograd(name: str, data: st.DataObject) -> None:
    module = Between(data.draw(LAYERS[name]).double(), name in ("relu", "group-norm", "identity")).double()
    lanes, width = data.draw(sizes), data.draw(sizes)
    counts = [data.draw(st.integers(1, width)) for _ in range(lanes)]
    # Few different numbers: equal ones in a window must send the gradient where torch sends it.
    x = torch.randint(-2, 3, (lanes, width, 1, 5, 6), generator=torch.Generator().manual_seed(1)).double()
    agree(module, x, counts, seed=data.draw(st.integers(0, 99)))


@given(
    lanes=sizes,
    width=st.integers(1, 12),
    features=st.integers(1, 40),
    hidden=st.integers(1, 20),
    bias=st.booleans(),
    norm=st.booleans(),
    seed=st.integers(0, 99),
)
def test_dense_layers_have_the_gradients_of_autograd(
    lanes: int, width: int, features: int, hidden: int, bias: bool, norm: bool, seed: int
) -> None:
    middle: list[nn.Module] = [nn.LayerNorm(hidden)] if norm else []
    module = nn.Sequential(
        nn.Linear(features, hidden, bias=bias), *middle, nn.Tanh(), nn.Linear(hidden, CLASSES)
    ).double()
    x = torch.randn(lanes, width, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    agree(module, x, [width] * lanes, seed)


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.mix, self.head = nn.Embedding(7, 4), nn.Linear(4, 5), nn.Linear(15, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(F.relu(self.mix(self.table(x))).flatten(1))
        return logits


def test_words_are_looked_up_in_each_lanes_own_table() -> None:
    x = torch.randint(0, 7, (3, 4, 3), generator=torch.Generator().manual_seed(0))
    agree(Words().double(), x, [4, 2, 1])


class Functional(nn.Module):
    """A network written with functions where others write layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 3, 3), nn.Linear(3 * 3 * 3, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        logits: Tensor = self.head(x.flatten(1))
        return logits


def test_a_network_written_with_functions_is_recognized() -> None:
    x = torch.randn(2, 3, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    agree(Functional().double(), x, [3, 1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("model", "shape"), [("mlp", (19,)), ("cnn", (1, 16, 17)), ("resnet8", (3, 9, 8))])
def test_a_lane_gets_the_same_bits_alone_and_among_others(model: str, shape: tuple[int, ...], dtype: Any) -> None:
    module = build_model(Experiment(model={"name": model}).model, shape, CLASSES, seed=0).to(dtype)
    layout, lanes, width = Layout.of(module), 6, 7
    generator = torch.Generator().manual_seed(0)
    like = layout.flatten(module)
    flat = like + 0.1 * torch.randn(lanes, layout.size, generator=generator, dtype=dtype)
    x = torch.randn(lanes * width, *shape, generator=generator, dtype=dtype)
    y = torch.randint(0, CLASSES, (lanes, width), generator=generator)
    rows = torch.arange(lanes * width).view(lanes, width)

    def after_two_steps(chosen: list[int]) -> Tensor:
        stacked = StackedLanes(Task(module), layout, like, len(chosen))
        stacked.theta.copy_(stacked.packing.pack(flat[chosen]))
        for _ in range(2):
            stacked.accumulate(
                LaneBatch(x, rows[chosen].view(-1), y[chosen], None, np.full(len(chosen), width)),
                stacked.theta,
                1.0,
                -0.1,
            )
        return stacked.packing.unpack(stacked.theta)

    together = after_two_steps(list(range(lanes)))
    for chosen in ([0], [5], [2, 4], [1, 3, 5]):
        assert after_two_steps(chosen).equal(together[chosen])


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(0, 9))
def test_packing_and_unpacking_loses_nothing(widths: list[int], seed: int) -> None:
    module = nn.ParameterList([nn.Parameter(torch.zeros(width)) for width in widths])
    layout = Layout.of(module)
    packing = Packing(layout, torch.zeros(1))
    flat = torch.randn(3, layout.size, generator=torch.Generator().manual_seed(seed))
    packed = packing.pack(flat)
    assert packing.unpack(packed).equal(flat)
    assert torch.allclose(packed.norm(dim=1), flat.norm(dim=1))
    assert all(view[0].data_ptr() % 64 == packed.data_ptr() % 64 for view in packing.views(packed).values())


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(x if x.sum() > 0 else -x)
        return logits


def twice() -> nn.Module:
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(4, CLASSES))


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (nn.Sequential(nn.Linear(4, CLASSES), nn.Softplus()), "Softplus at 1 has no rule"),
        (Branching(), "cannot be traced"),
        (twice(), "0.weight is used twice"),
        (nn.Sequential(nn.Linear(4, 4).requires_grad_(False), nn.Linear(4, CLASSES)), "0.weight is frozen"),
    ],
)
def test_a_model_that_has_no_rules_goes_lane_by_lane_and_is_told_why(module: nn.Module, why: str) -> None:
    choice = choose_backend("auto", Task(module), torch.ones(2, 4), torch.tensor([0, 1]))
    assert choice.backend == "each"
    assert why in choice.why
    with pytest.raises(InvalidExperiment, match="stacked does not know this model"):
        choose_backend("stacked", Task(module), torch.ones(2, 4), torch.tensor([0, 1]))


def test_layers_that_overlap_their_windows_have_no_rule() -> None:
    module = nn.Sequential(nn.MaxPool2d(3, 2), nn.Flatten(), nn.Linear(4, CLASSES))
    assert "overlap" in choose_backend("auto", Task(module), torch.ones(1, 1, 5, 5), torch.tensor([0])).why


def test_another_loss_goes_lane_by_lane() -> None:
    task = Task(nn.Linear(4, CLASSES), F.multi_margin_loss)
    assert choose_backend("auto", task, torch.ones(1, 4), torch.tensor([0])).why.startswith("its loss has no rule")
