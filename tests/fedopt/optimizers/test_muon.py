"""Muon against a plain transcription in float64, against torch.optim.Muon in bfloat16, and lane by lane."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from clients.lanes.packing import Packing
from fedopt.algorithms.fedavg import FedAvg
from fedopt.optimizers.local import LocalSettings
from fedopt.optimizers.muon import Muon, newton_schulz
from fedopt.schedules.base import Rates
from fedopt.vectors.layout import Layout
from tests.fedopt.algorithms.papers.setting import PROBLEMS, errors
from tests.fedopt.optimizers.test_on_lanes import Parabolas, PerLane

SHAPES = {"conv": (4, 2, 3, 3), "bias": (4,), "wide": (3, 7), "tall": (9, 2), "scale": ()}
LAYOUT = Layout(tuple(SHAPES), tuple(torch.Size(shape) for shape in SHAPES.values()))
LR = 0.05
Scale = Literal["original", "match_rms_adamw", "spectral_unclamped"]


def polar(matrix: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz by singular values: each s becomes a s + b s^3 + c s^5, `steps` times."""
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    s = s / matrix.norm().clamp(min=1e-7)
    for _ in range(steps):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    orthogonal: Tensor = u * s @ vh
    return orthogonal


class Alone:
    """One lane: Muon written out for each matrix, torch.optim.AdamW for the rest."""

    def __init__(self, settings: Muon, shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> None:
        self.settings = settings
        self.parameters = {
            name: nn.Parameter(torch.zeros(shape, dtype=torch.float64)) for name, shape in shapes.items()
        }
        several = [name for name, shape in shapes.items() if len(shape) > 1]
        self.matrices = several if settings.ends == "muon" else several[1:-1]
        self.momentum = {name: torch.zeros_like(self.parameters[name]) for name in self.matrices}
        others = [parameter for name, parameter in self.parameters.items() if name not in self.matrices]
        self.adamw = torch.optim.AdamW(others, 1.0, settings.betas, settings.eps, settings.weight_decay)

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor], lr: float) -> None:
        mu, scale = self.settings.momentum, self.settings.scale
        for name, theta in self.parameters.items():
            theta.grad = gradients[name]
        self.adamw.param_groups[0]["lr"] = lr * self.settings.adamw_rate
        self.adamw.step()
        for name in self.matrices:
            theta, g = self.parameters[name], gradients[name]
            self.momentum[name] = mu * self.momentum[name] + (1 - mu) * g
            u = mu * self.momentum[name] + (1 - mu) * g if self.settings.nesterov else self.momentum[name]
            m, n = len(g), g[0].numel()
            r = {"original": math.sqrt(max(1, m / n)), "match_rms_adamw": 0.2 * math.sqrt(max(m, n))}.get(scale)
            r = math.sqrt(m / n) if r is None else r
            x = polar(u.reshape(m, n), self.settings.newton_schulz).reshape(g.shape)
            theta.copy_((1 - lr * self.settings.weight_decay) * theta - lr * r * x)


SETTINGS: dict[str, Muon] = {
    "defaults": Muon(),
    "heavy ball": Muon(nesterov=False, momentum=0.8),
    "decay": Muon(weight_decay=0.3, adamw_rate=0.4),
    "rms": Muon(scale="match_rms_adamw", newton_schulz=3, adamw_rate=1.0),
    "spectral": Muon(scale="spectral_unclamped", newton_schulz=0),
    "ends by AdamW": Muon(ends="adamw", betas=(0.5, 0.9), eps=0.1),
}


@pytest.mark.parametrize("by", ["numbers", "tensor", "lanes"])
@pytest.mark.parametrize("name", SETTINGS)
def test_each_lane_goes_where_the_plain_one_goes(name: str, by: str) -> None:
    settings = SETTINGS[name]
    chance = torch.Generator().manual_seed(0)
    packing = Packing(LAYOUT, torch.zeros(1, dtype=torch.float64))
    theta = torch.zeros(3, packing.width, dtype=torch.float64)
    lanes = settings.build(theta, packing)
    per_step = [LR / (1 + step) for step in range(4)]
    for active in (3, 1):  # nothing of the round before is left
        starts, centers = torch.randn(2, active, LAYOUT.size, generator=chance, dtype=torch.float64)
        theta[:active] = packing.pack(starts)
        gradient = Parabolas(theta, packing.pack(centers))
        gradient.active = active
        of_lanes = PerLane(per_step, active)
        rates = {
            "numbers": Rates(per_step, theta.dtype),
            "tensor": Rates(per_step, theta.dtype, torch.zeros((), dtype=theta.dtype)),
            "lanes": of_lanes,
        }[by]
        lanes.begin(active, rates)
        for step in range(4):
            if step == 2 and active > 1:
                of_lanes.active = gradient.active = active - 1
                lanes.shrink(active - 1)
            rates.choose(step)
            lanes.step(gradient)
        for lane in range(active):
            alone = Alone(settings)
            goals = LAYOUT.split(centers[lane])
            for parameter, start in zip(alone.parameters.values(), LAYOUT.split(starts[lane]).values(), strict=True):
                parameter.data.copy_(start)
            for rate in per_step[: 2 if lane == active - 1 > 0 else 4]:
                away = {name: (p - goals[name]).detach() for name, p in alone.parameters.items()}
                alone.step(away, rate / (1 + lane) if by == "lanes" else rate)
            expected = torch.cat([p.detach().flatten() for p in alone.parameters.values()])
            assert torch.allclose(packing.unpack(theta)[lane], expected, rtol=1e-10, atol=1e-10)
        assert packing.pack(packing.unpack(theta)).equal(theta)  # gaps are zero


@pytest.mark.parametrize("scale", ["original", "match_rms_adamw", "spectral_unclamped"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_matrices_go_where_torchs_own_leads_them(scale: Scale, nesterov: bool) -> None:
    """torch iterates in bfloat16, which has 8 bits: a step of it differs by a few percent."""
    chance = torch.Generator().manual_seed(0)
    start, center = torch.randn(2, 6, 4, generator=chance, dtype=torch.float64)
    point = nn.Parameter(start.clone())
    torchs = torch.optim.Muon([point], LR, 0.1, 0.9, nesterov=nesterov, adjust_lr_fn=scale)
    layout = Layout(("w",), (start.shape,))
    packing = Packing(layout, start)
    theta = packing.pack(start.reshape(1, -1).clone())
    optimizer = Muon(scale=scale, nesterov=nesterov, momentum=0.9, weight_decay=0.1)
    lanes = optimizer.build(theta, packing)
    lanes.begin(1, Rates([LR] * 5, theta.dtype))
    for _ in range(5):
        point.grad = (point - center).detach()
        torchs.step()  # type: ignore[no-untyped-call]
        lanes.step(Parabolas(theta, packing.pack(center.reshape(1, -1))))
    moved = (packing.unpack(theta).view(6, 4) - start).norm()
    assert (packing.unpack(theta).view(6, 4) - point.detach()).norm() < 0.03 * moved


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (1, 4), (6, 6)])
def test_the_iteration_keeps_singular_vectors_and_brings_their_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = newton_schulz(matrix, 5)
    assert torch.allclose(found, polar(matrix), rtol=1e-10, atol=1e-10)
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.6
    assert values.max() < 1.3
    assert torch.allclose(newton_schulz(1e6 * matrix, 5), found, rtol=1e-9, atol=1e-9)
    assert not newton_schulz(torch.zeros(shape), 5).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("vector", [17, 22, 97])
def test_a_lane_has_the_same_bits_alone_and_among_seven(dtype: torch.dtype, vector: int) -> None:
    layout = Layout(("w", "b", "v"), (torch.Size((50, 33)), torch.Size((vector,)), torch.Size((10, 64))))
    packing = Packing(layout, torch.zeros(1, dtype=dtype))
    starts, centers = torch.randn(2, 7, layout.size, generator=torch.Generator().manual_seed(0)).to(dtype)

    def ends(lanes: slice) -> Tensor:
        theta = packing.pack(starts[lanes])
        optimizer = Muon().build(theta, packing)
        optimizer.begin(len(theta), Rates([LR] * 20, dtype))
        for _ in range(20):
            optimizer.step(Parabolas(theta, packing.pack(centers[lanes])))
        return theta

    together = ends(slice(0, 7))
    assert all(together[i : i + 1].equal(ends(slice(i, i + 1))) for i in range(7))


@pytest.mark.parametrize("state", ["reset", "keep", "average"])
def test_rounds_with_moments_between_them_are_those_of_plain_loops(state: str) -> None:
    problem = PROBLEMS["network-unequal"]
    shapes = {"w1": (4, 3), "b1": (4,), "w2": (3, 4), "b2": (3,)}
    layout = Layout(tuple(shapes), tuple(torch.Size(shape) for shape in shapes.values()))
    local = LocalSettings(optimizer="muon", lr=0.02, epochs=2, batch_size=3, state=state)
    assert isinstance(local.optimizer, Muon)

    def plainly(settings: Muon) -> Iterator[Tensor]:
        x, p = problem.start, problem.weights()
        own: dict[int, dict[str, Any]] = {}
        common: dict[str, Any] | None = None
        for round_, clients in problem.rounds(3, 3):
            share, moved, ended = p[clients] / p[clients].sum(), [], []
            for i in clients:
                alone = Alone(settings, shapes)
                for parameter, start in zip(alone.parameters.values(), layout.split(x).values(), strict=True):
                    parameter.data.copy_(start)
                before = {"reset": None, "keep": own.get(i), "average": common}[state]
                if before is not None:
                    alone.momentum = {name: before[name].clone() for name in alone.matrices}
                    for name in ("b1", "b2"):
                        alone.adamw.state[alone.parameters[name]] = {k: v.clone() for k, v in before[name].items()}
                for batch in problem.batches(local, round_, i):
                    y = torch.cat([parameter.detach().flatten() for parameter in alone.parameters.values()])
                    alone.step(layout.split(problem.gradient(i, y, batch)), local.lr)
                moved.append(torch.cat([parameter.detach().flatten() for parameter in alone.parameters.values()]) - x)
                states = {name: dict(alone.adamw.state[alone.parameters[name]]) for name in ("b1", "b2")}
                ended.append({**alone.momentum, **states})
                own[i] = ended[-1]
            x = x + share @ torch.stack(moved)
            common = {name: mean([end[name] for end in ended], share) for name in ended[0]}
            yield x

    found = problem.play(FedAvg(), local, 3, 3)
    assert max(errors(found, plainly(local.optimizer))) < 1e-9


def mean(values: list[Any], share: Tensor) -> Any:
    if isinstance(values[0], dict):
        return {key: mean([value[key] for value in values], share) for key in values[0]}
    return sum(w * value for w, value in zip(share, values, strict=True))


@pytest.mark.parametrize("shape", [(5,), (2, 3)])
def test_a_model_of_vectors_is_adamws_and_one_of_matrices_needs_none(shape: tuple[int, ...]) -> None:
    layout = Layout(("p",), (torch.Size(shape),))
    packing = Packing(layout, torch.zeros(1, dtype=torch.float64))
    theta = torch.zeros(2, packing.width, dtype=torch.float64)
    lanes = Muon().build(theta, packing)
    lanes.begin(2, Rates([LR], theta.dtype))
    ones = torch.ones(shape, dtype=torch.float64)
    lanes.step(Parabolas(theta, packing.pack(ones.expand(2, *shape).reshape(2, -1))))
    expected = 0.1 * LR * ones if len(shape) == 1 else LR * polar(ones)
    assert torch.allclose(packing.unpack(theta)[1], expected.flatten(), rtol=1e-6)
    assert tuple(lanes.moments) == Muon().moment_names
    before = {name: moment.clone() for name, moment in lanes.moments.items()}
    lanes.load_moments(before)
    assert all(moment.equal(before[name]) for name, moment in lanes.moments.items())
