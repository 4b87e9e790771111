"""The classes of docs/extending.md compute what the page says, by the formulas of their papers."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedopt.channel.base import BadPayload, ChannelKey
from fedopt.data.partitions.base import TrainingSet
from fedopt.schedules.base import Rates
from fedopt.vectors.layout import RowLayout
from tests.docs.blocks import ROOT, Kind, read_page

PAGE = ROOT / "docs" / "extending.md"


@pytest.fixture(scope="module")
def page() -> Iterator[dict[str, Any]]:
    """What the files of the page define, by name."""
    names: dict[str, Any] = {}
    modules: list[str] = []
    for block in read_page(PAGE):
        if block.kind is Kind.FILE and block.language == "python" and block.title != "leaky_rule.py":
            module = ModuleType(Path(block.title).stem)
            modules.append(module.__name__)
            sys.modules[module.__name__] = module
            exec(compile(block.text, block.title, "exec"), module.__dict__)
            names |= vars(module)
    yield names
    for name in modules:
        del sys.modules[name]


class Given:
    """A gradient that does not depend on theta. Implements `fedopt.optimizers.base.Gradient` as far as it is used."""

    def __init__(self, value: Tensor) -> None:
        self.value = value

    def __call__(self) -> Tensor:
        return self.value.clone()


def test_lion_takes_the_steps_of_its_paper(page: dict[str, Any]) -> None:
    """Algorithm 2 of Chen et al. 2023, without weight decay, for each lane alone."""
    rng = torch.Generator().manual_seed(0)
    gradients = torch.randn(4, 2, 3, generator=rng, dtype=torch.float64)
    theta = torch.randn(2, 3, generator=rng, dtype=torch.float64)
    expected, momentum = theta.clone(), torch.zeros_like(theta)
    for g in gradients:
        expected = expected - 0.1 * torch.sign(0.9 * momentum + 0.1 * g)
        momentum = 0.99 * momentum + 0.01 * g
    layout: RowLayout = None  # type: ignore[assignment]  # Lion does not read it
    lanes = page["Lion"]().build(theta, layout)
    lanes.begin(2, Rates([0.1] * 4, torch.float64))
    for g in gradients:
        lanes.step(Given(g))
    assert torch.allclose(theta, expected, rtol=0, atol=1e-14)
    assert torch.allclose(lanes.moments["m"], momentum, rtol=0, atol=1e-14)


def test_lion_on_the_server_takes_the_steps_of_its_paper(page: dict[str, Any]) -> None:
    """Algorithm 2 with -D for the gradient."""
    rng = torch.Generator().manual_seed(0)
    x = expected = torch.randn(3, generator=rng, dtype=torch.float64)
    server, momentum = page["ServerLion"](), torch.zeros(3, dtype=torch.float64)
    state = server.state(x)
    for g in -torch.randn(4, 3, generator=rng, dtype=torch.float64):
        expected = expected - 0.1 * torch.sign(0.9 * momentum + 0.1 * g)
        momentum = 0.99 * momentum + 0.01 * g
        x, state = server.step(x, -g, state, 0.1)
    assert torch.allclose(x, expected, rtol=0, atol=1e-14)


def test_fedprox_adds_the_gradient_of_its_term(page: dict[str, Any]) -> None:
    x, y = torch.tensor([1.0, -2.0]).double(), torch.tensor([[3.0, 0.5]]).double().requires_grad_()
    (expected,) = torch.autograd.grad(0.7 / 2 * (y - x).square().sum(), y)
    prox = page["FedProx"](mu=0.7)
    beginning = SimpleNamespace(x=x)
    assert torch.equal(prox.correct(torch.zeros(1, 2).double(), y.detach(), prox.begin(beginning)), expected)


def test_what_top_k_sends_and_keeps_is_what_was_to_be_sent(page: dict[str, Any]) -> None:
    stage, like = page["TopK"](share=0.25), {"dx": torch.zeros(8).double()}
    wanted, received, state = torch.zeros(8).double(), torch.zeros(8).double(), stage.client_state(like)
    for round_ in range(1, 5):
        vector = torch.randn(8, generator=torch.Generator().manual_seed(round_)).double()
        payload, state = stage.send({"dx": vector}, state, ChannelKey(0, round_, 0, 0))
        found = stage.receive(payload, like)["dx"]
        assert int((found != 0).sum()) == 2
        wanted, received = wanted + vector, received + found
    assert torch.allclose(received + state["dx"], wanted, rtol=0, atol=1e-14)


@pytest.mark.parametrize("places", [[-1, 2], [0, 8], [[0, 1]]])
def test_top_k_refuses_places_that_are_none(places: list[int], page: dict[str, Any]) -> None:
    at = torch.tensor(places, dtype=torch.int32)
    payload = {"dx.at": at, "dx.values": torch.ones(at.shape).double()}
    with pytest.raises(BadPayload):
        page["TopK"]().receive(payload, {"dx": torch.zeros(8).double()})


def test_the_skewed_partition_deals_every_sample_once(page: dict[str, Any]) -> None:
    labels = np.repeat(np.arange(10), 20)
    sorted_parts = page["Skewed"](skew=1.0).draw(TrainingSet(labels), 10, np.random.default_rng(0))
    assert [set(labels[part]) for part in sorted_parts] == [{label} for label in range(10)]
    for skew in (0.0, 0.35, 1.0):
        parts = page["Skewed"](skew=skew).draw(TrainingSet(labels), 7, np.random.default_rng(0))
        assert sorted(np.concatenate(parts)) == list(range(200))


def test_the_cosine_starts_again_after_its_period(page: dict[str, Any]) -> None:
    restarts = page["Restarts"](period=4)
    rates = [restarts.rate(0.2, round_, step) for round_, step in ((1, 0), (2, 5), (3, 0), (5, 0), (10, 0))]
    assert rates == pytest.approx([0.2, 0.1 * (1 + math.sqrt(0.5)), 0.1, 0.2, 0.1 * (1 + math.sqrt(0.5))], abs=1e-15)


def test_the_median_is_that_of_each_coordinate(page: dict[str, Any]) -> None:
    rows = np.random.default_rng(0).standard_normal((5, 4))
    collector = page["Median"]().collector()
    collector.begin()
    for client in (3, 0, 4, 1, 2):
        collector.fold(client, {"dx": torch.from_numpy(rows[client])}, {}, 0.2)
    assert collector.totals().mean("dx").tolist() == np.median(rows, axis=0).tolist()
    assert collector.totals().precise_mean("dx").numpy() == pytest.approx(rows.mean(axis=0), abs=1e-15)
