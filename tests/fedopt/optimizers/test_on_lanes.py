"""Optimizers on lanes against torch.optim on each lane alone: every setting, changing rates, moments that are kept."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from clients.lanes.packing import Packing
from fedopt.optimizers import fused
from fedopt.optimizers.adagrad import Adagrad
from fedopt.optimizers.adam import Adam, AdamLanes, FusedAdamLanes
from fedopt.optimizers.adamw import AdamW
from fedopt.optimizers.amsgrad import Amsgrad
from fedopt.optimizers.asam import Asam
from fedopt.optimizers.asgd import Asgd
from fedopt.optimizers.averaged_gradient import AveragedGradient
from fedopt.optimizers.base import Gradient, LaneOptimizer, Optimizer
from fedopt.optimizers.kfac import Kfac
from fedopt.optimizers.larc import Larc
from fedopt.optimizers.lars import Lars
from fedopt.optimizers.lbfgs import Lbfgs
from fedopt.optimizers.lion import Lion
from fedopt.optimizers.lookahead import Lookahead
from fedopt.optimizers.muon import Muon
from fedopt.optimizers.nadam import NAdam
from fedopt.optimizers.newton import Newton
from fedopt.optimizers.radam import RAdam
from fedopt.optimizers.rmsprop import RmsProp
from fedopt.optimizers.sag import Sag
from fedopt.optimizers.saga import Saga
from fedopt.optimizers.sam import Sam
from fedopt.optimizers.sgd import Sgd
from fedopt.schedules.base import Rates
from fedopt.vectors.layout import Layout
from tests.fedopt.optimizers.references import scalars_in_float64

LANES, SIZE, STEPS, LR = 3, 32, 6, 0.1

SETTINGS: dict[str, Optimizer] = {
    "sgd": Sgd(),
    "sgd-decay": Sgd(weight_decay=0.3),
    "momentum": Sgd(momentum=0.7),
    "momentum-decay": Sgd(momentum=0.7, weight_decay=0.3),
    "nesterov": Sgd(momentum=0.7, nesterov=True),
    "nesterov-decay": Sgd(momentum=0.7, nesterov=True, weight_decay=0.3),
    "adam": Adam(betas=(0.6, 0.8), eps=0.05),
    "adam-decay": Adam(weight_decay=0.3),
    "adam-without-means": Adam(betas=(0.0, 0.8)),
    "adamw-decay": AdamW(betas=(0.6, 0.8), eps=0.05, weight_decay=0.3),
    "dampening": Sgd(momentum=0.7, dampening=0.4, weight_decay=0.3),
    "adam-amsgrad": Adam(betas=(0.6, 0.8), eps=0.05, amsgrad=True),
    "adagrad": Adagrad(eps=0.05, weight_decay=0.3),
    "adagrad-initial": Adagrad(initial_accumulator_value=0.2, weight_decay=0.3),
    "rmsprop": RmsProp(smoothing=0.8, eps=0.05),
    "rmsprop-centered": RmsProp(smoothing=0.8, momentum=0.7, centered=True, eps=0.05, weight_decay=0.3),
    "nadam": NAdam(betas=(0.6, 0.8), eps=0.05, momentum_decay=0.3, weight_decay=0.3),
    "lbfgs": Lbfgs(history_size=3),
    "radam": RAdam(betas=(0.6, 0.9), eps=0.05, weight_decay=0.3),
}
BY_FORMULA = [
    f"{name} by formula" for name in ("adam", "adamw-decay", "adam-amsgrad", "adagrad", "nadam", "radam", "rmsprop")
]
"""With elementary operations, as on devices without torch's fused kernel of the optimizer."""
WITH_MOMENTS = [name for name, optimizer in SETTINGS.items() if optimizer.moment_names]


class Parabolas(Gradient):
    """The gradient of |theta - center|^2 / 2 on each lane."""

    def __init__(self, theta: Tensor, centers: Tensor) -> None:
        self._theta, self._centers = theta, centers
        self.active = len(theta)

    def __call__(self) -> Tensor:
        return self._theta[: self.active] - self._centers[: self.active]

    def add_to(self, target: Tensor, keep: float, scale: float) -> None:
        gradient = self()
        target[: self.active].mul_(keep).add_(gradient, alpha=scale)

    def add_to_theta(self, scale: float) -> None:
        self.add_to(self._theta, 1.0, scale)


class Alone:
    """One lane by torch's own optimizer."""

    def __init__(self, optimizer: Optimizer, size: int = SIZE, dtype: torch.dtype = torch.float64) -> None:
        self._parameter = nn.Parameter(torch.zeros(size, dtype=dtype))
        torchs = optimizer.torch_optimizer([self._parameter], LR)
        assert torchs is not None
        self._optimizer = torchs

    def round(self, start: Tensor, center: Tensor, rates: Sequence[float]) -> Tensor:
        """Where it leads from here; its state goes on."""
        self._parameter.data = start.clone()
        for rate in rates:
            self._optimizer.param_groups[0]["lr"] = rate
            self._parameter.grad = (self._parameter - center).detach()
            with scalars_in_float64():
                self._optimizer.step(lambda: 0.0)  # the gradient is there already
        return self._parameter.detach().clone()


def lane_optimizer(optimizer: Optimizer, theta: Tensor, *, by_formula: bool = False) -> LaneOptimizer:
    if by_formula and isinstance(optimizer, Adam):
        return AdamLanes(theta, optimizer)
    layout = Packing(Layout(("x",), (torch.Size([theta.shape[1]]),)), theta)
    with pytest.MonkeyPatch.context() as patch:
        if by_formula:
            patch.setattr(fused, "has_kernels", lambda theta: False)
        built = optimizer.build(theta, layout)
    assert isinstance(built, FusedAdamLanes) or not isinstance(optimizer, Adam)
    return built


def decaying(steps: int) -> list[float]:
    return [LR / (1 + step) for step in range(steps)]


def test_settings_cover_every_optimizer_that_torch_has() -> None:
    known = {Optimizer.registry.resolve(name) for name in Optimizer.registry}
    transcribed = {Sam, Asam, Amsgrad, Muon, AveragedGradient, Asgd, Lion, Lookahead, Larc, Lars}
    transcribed |= {Kfac, Newton, Sag, Saga}
    assert {type(optimizer) for optimizer in SETTINGS.values()} == known - transcribed


@pytest.mark.parametrize("by", ["numbers", "tensor", "lanes"])
@pytest.mark.parametrize("name", [*SETTINGS, *BY_FORMULA])
def test_each_lane_goes_where_torch_leads_it_round_after_round(name: str, by: str) -> None:
    """Under a rate that decays at every step, given as numbers, as a tensor, or as a tensor of one rate a lane."""
    optimizer = SETTINGS[name.removesuffix(" by formula")]
    generator = torch.Generator().manual_seed(0)
    theta = torch.zeros(LANES, SIZE, dtype=torch.float64)
    lanes = lane_optimizer(optimizer, theta, by_formula=name.endswith("by formula"))
    for active in (LANES, 1, LANES):  # nothing of the round before is left
        starts, centers = torch.randn(2, LANES, SIZE, generator=generator, dtype=torch.float64)
        theta.copy_(starts)
        gradient = Parabolas(theta, centers)
        gradient.active = active
        of_lanes = PerLane(decaying(STEPS), active)
        rates = {
            "numbers": Rates(decaying(STEPS), theta.dtype),
            "tensor": Rates(decaying(STEPS), theta.dtype, torch.zeros((), dtype=theta.dtype)),
            "lanes": of_lanes,
        }[by]
        lanes.begin(active, rates)
        for step in range(STEPS):
            if step == 2 and active > 1:  # the last lane has taken all its steps
                of_lanes.active = gradient.active = active - 1
                lanes.shrink(active - 1)
            rates.choose(step)
            lanes.step(gradient)
        for lane in range(LANES):
            steps = 0 if lane >= active else 2 if lane == active - 1 > 0 else STEPS
            scale = 1 + lane if by == "lanes" else 1
            expected = Alone(optimizer).round(starts[lane], centers[lane], [r / scale for r in decaying(steps)])
            assert torch.allclose(theta[lane], expected, rtol=1e-12, atol=1e-12)


class PerLane(Rates):
    """Lane i has 1 / (1 + i) of each rate: what a schedule that depends on the client would give."""

    def __init__(self, per_step: Sequence[float], active: int) -> None:
        super().__init__(per_step, torch.float64)
        self.active = active

    def at(self, step: int) -> Tensor:
        return self.per_step[step] / torch.arange(1, self.active + 1, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("name", [*WITH_MOMENTS, *BY_FORMULA])
def test_moments_that_a_client_keeps_go_on_as_torchs_do(name: str) -> None:
    """Three clients on two lanes, in an order that gives neighbours different step counts."""
    optimizer = SETTINGS[name.removesuffix(" by formula")]
    generator = torch.Generator().manual_seed(0)
    theta = torch.zeros(2, SIZE, dtype=torch.float64)
    lanes = lane_optimizer(optimizer, theta, by_formula=name.endswith("by formula"))
    alone = [Alone(optimizer) for _ in range(3)]
    kept = [{key: torch.zeros(SIZE, dtype=torch.float64) for key in optimizer.moment_names} for _ in range(3)]
    for cohort, steps in [((0, 1), (5, 2)), ((2, 0), (4, 4)), ((1, 0), (6, 1)), ((1, 2), (3, 3))]:
        starts, centers = torch.randn(2, 2, SIZE, generator=generator, dtype=torch.float64)
        theta.copy_(starts)
        gradient = Parabolas(theta, centers)
        lanes.begin(2, Rates(decaying(max(steps)), theta.dtype))
        lanes.load_moments({key: torch.stack([kept[c][key] for c in cohort]) for key in optimizer.moment_names})
        for step in range(max(steps)):
            if step == steps[1]:
                gradient.active = 1
                lanes.shrink(1)
            lanes.step(gradient)
        assert tuple(lanes.moments) == optimizer.moment_names
        for lane, client in enumerate(cohort):
            kept[client] = {key: moment[lane].clone() for key, moment in lanes.moments.items()}
            expected = alone[client].round(starts[lane], centers[lane], decaying(steps[lane]))
            assert torch.allclose(theta[lane], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("optimizer", [Adam(), NAdam(), RAdam()], ids=["adam", "nadam", "radam"])
def test_a_lane_has_the_same_bits_beside_lanes_with_other_step_counts(optimizer: Optimizer, dtype: torch.dtype) -> None:
    """The kernel is called once for all lanes, or for each row with its own count."""
    generator = torch.Generator().manual_seed(0)
    starts, centers = torch.randn(2, LANES, 4096, generator=generator, dtype=dtype)
    ends = []
    for counts in ([3, 3, 3], [3, 1, 7]):
        theta = starts.clone()
        lanes = lane_optimizer(optimizer, theta)
        lanes.begin(LANES, Rates(decaying(STEPS), dtype))
        steps = torch.tensor(counts, dtype=dtype)[:, None].expand(LANES, 4096)
        moments = {"exp_avg": starts / 8, "exp_avg_sq": starts.square() / 8, "step": steps}
        moments["momentum_weight"] = 1 - 0.5**steps
        lanes.load_moments({name: moments[name] for name in optimizer.moment_names})
        for _ in range(STEPS):
            lanes.step(Parabolas(theta, centers))
        ends.append(theta)
    assert ends[0][0].equal(ends[1][0])
    assert not ends[0][1].equal(ends[1][1])


def test_an_optimizer_without_moments_refuses_to_load_some() -> None:
    lanes = lane_optimizer(Sgd(), torch.zeros(1, SIZE))
    with pytest.raises(ValueError, match="DescentLanes has no moments, and got momentum"):
        lanes.load_moments({"momentum": torch.zeros(1, SIZE)})


def test_sam_has_the_moments_of_its_base() -> None:
    theta = torch.ones(1, SIZE, dtype=torch.float64)
    optimizer = Sam(base="adam", rho=0.0)
    lanes = lane_optimizer(optimizer, theta)
    lanes.begin(1, Rates([LR], theta.dtype))
    lanes.step(Parabolas(theta, torch.zeros_like(theta)))
    assert tuple(lanes.moments) == optimizer.moment_names == Adam().moment_names
    assert torch.allclose(lanes.moments["exp_avg"], torch.full((1, SIZE), 0.1, dtype=torch.float64))


class Given(Gradient):
    """The same gradient at every step."""

    def __init__(self, gradient: Tensor) -> None:
        self._gradient = gradient

    def __call__(self) -> Tensor:
        return self._gradient

    def add_to(self, target: Tensor, keep: float, scale: float) -> None:
        target.mul_(keep).add_(self._gradient, alpha=scale)

    def add_to_theta(self, scale: float) -> None:
        raise NotImplementedError


def test_a_small_weight_decay_is_that_of_torch_in_float32() -> None:
    """1 - lr * decay has no digits left there: 1 - 2e-7 is 1 - 1.8e-7."""
    generator = torch.Generator().manual_seed(0)
    theta, gradient = (torch.randn(1, 999, generator=generator) for _ in range(2))
    parameter = torch.nn.Parameter(theta.clone())
    plain = torch.optim.SGD([parameter], lr=0.02, weight_decay=1e-5)
    ours = lane_optimizer(Sgd(weight_decay=1e-5), theta)
    ours.begin(1, Rates([0.02] * 300, theta.dtype))
    for _ in range(300):
        parameter.grad = 1e-3 * gradient
        plain.step()
        ours.step(Given(1e-3 * gradient))
    assert theta.equal(parameter.detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", [1, 7, 600])
def test_the_sum_of_equal_rates_is_the_number_of_steps_times_the_rate(dtype: torch.dtype, steps: int) -> None:
    lr = 0.0123
    total = torch.tensor(Rates([lr] * 1000, dtype).total(steps), dtype=dtype)
    assert total.equal(torch.tensor(float(steps), dtype=dtype) * lr)


def test_the_sum_of_rates_is_that_of_the_numbers_that_float32_has() -> None:
    exact = [float(torch.tensor(rate, dtype=torch.float32)) for rate in decaying(50)]
    assert Rates(decaying(50), torch.float32).total(40) == math.fsum(exact[:40])
