"""How optimizers relate to one another, what FedNova reads off them, and what they refuse."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor

import fedopt
from clients.lanes.packing import Packing
from fedopt.errors import InvalidExperiment
from fedopt.optimizers import OPTIMIZERS
from fedopt.optimizers.base import Gradient, LaneOptimizer, Optimizer
from fedopt.optimizers.local import LocalSettings
from fedopt.schedules import SCHEDULES
from fedopt.schedules.base import Rates
from fedopt.vectors.layout import Layout
from tests.fedopt.optimizers.test_on_lanes import Given, Parabolas, PerLane

SIZE, LR = 32, 0.05


def built(theta: Tensor, **keys: Any) -> tuple[Optimizer, LaneOptimizer]:
    optimizer = LocalSettings(**keys).optimizer
    return optimizer, optimizer.build(theta, Packing(Layout(("x",), (torch.Size([theta.shape[1]]),)), theta))


def steps(theta: Tensor, gradient: Gradient, rates: list[float], **keys: Any) -> LaneOptimizer:
    _, lanes = built(theta, **keys)
    lanes.begin(len(theta), Rates(rates, theta.dtype))
    for _ in rates:
        lanes.step(gradient)
    return lanes


def parabolas() -> tuple[Tensor, Tensor]:
    start, centers = torch.randn(2, 2, SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return start, centers


def test_torchs_nesterov_walks_over_the_look_ahead_points_of_the_other_form() -> None:
    start, centers = parabolas()
    keys = {"momentum": 0.8, "nesterov": True, "weight_decay": 0.3}
    torchs, ahead = start.clone(), start.clone()
    steps(torchs, Parabolas(torchs, centers), [LR] * 7, **keys)
    lanes = steps(ahead, Parabolas(ahead, centers), [LR] * 7, nesterov_form="look-ahead", **keys)
    assert torch.allclose(torchs, ahead - LR * 0.8 * lanes.moments["momentum"], rtol=1e-13)
    assert not torch.allclose(torchs, ahead, rtol=1e-3)


def test_the_averaged_gradient_is_the_heavy_ball_at_another_rate() -> None:
    start, centers = parabolas()
    mean, ball = start.clone(), start.clone()
    steps(mean, Parabolas(mean, centers), [LR] * 7, optimizer="averaged-gradient", beta=0.8)
    steps(ball, Parabolas(ball, centers), [0.2 * LR] * 7, optimizer="sgd", momentum=0.8)
    assert torch.allclose(mean, ball, rtol=1e-13)


def test_asgd_sends_the_mean_of_the_iterates_of_sgd() -> None:
    start, centers = parabolas()
    theta, iterates = start.clone(), []
    for count in range(1, 8):
        plain = start.clone()
        steps(plain, Parabolas(plain, centers), [LR] * count)
        iterates.append(plain)
    steps(theta, Parabolas(theta, centers), [LR] * 7, optimizer="asgd", average_from=3)
    assert torch.allclose(theta, torch.stack(iterates[2:]).mean(0), rtol=1e-13)


LINEAR: dict[str, dict[str, Any]] = {
    "dampening": {"optimizer": "sgd", "momentum": 0.8, "dampening": 0.3},
    "look-ahead": {"optimizer": "sgd", "momentum": 0.8, "nesterov": True, "nesterov_form": "look-ahead"},
    "averaged-gradient": {"optimizer": "averaged-gradient", "beta": 0.8},
    "asgd": {"optimizer": "asgd", "lambd": 0.0, "average_from": 2},
    "lookahead": {"optimizer": "lookahead", "momentum": 0.8, "sync_period": 2, "slow_step": 0.3},
}


class Pulled(Gradient):
    """1 at every step, plus mu times how far theta has moved."""

    def __init__(self, theta: Tensor, mu: float) -> None:
        self._theta, self._mu = theta, mu

    def __call__(self) -> Tensor:
        return 1.0 + self._mu * self._theta

    def add_to(self, target: Tensor, keep: float, scale: float) -> None:
        target.mul_(keep).add_(self(), alpha=scale)

    def add_to_theta(self, scale: float) -> None:
        self.add_to(self._theta, 1.0, scale)


@pytest.mark.parametrize("mu", [0.0, 0.7])
@pytest.mark.parametrize("name", LINEAR)
def test_fednovas_weights_are_how_far_a_gradient_of_one_moves_theta(name: str, mu: float) -> None:
    rates = [LR / (1 + step) for step in range(6)]
    theta = torch.zeros(1, SIZE, dtype=torch.float64)
    steps(theta, Pulled(theta, mu), rates, **LINEAR[name])
    accumulated = LocalSettings(**LINEAR[name]).optimizer.accumulated(rates, mu)
    if name == "lookahead" and mu:
        assert accumulated is None
        return
    assert accumulated == pytest.approx(-float(theta[0, 0]), rel=1e-13)


@pytest.mark.parametrize("name", ["adagrad", "rmsprop", "nadam", "radam", "lion", "larc", "lars"])
def test_fednova_refuses_what_has_no_such_weights(name: str) -> None:
    with pytest.raises(InvalidExperiment, match=f"fednova needs the weight of each gradient .*, and {name} has none"):
        fedopt.Experiment(algorithm={"name": "fednova"}, local={"optimizer": name})


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"nesterov": True}, "local.nesterov: needs momentum above 0"),
        ({"momentum": 0.9, "nesterov_form": "look-ahead"}, "local.nesterov_form: is a form of Nesterov's momentum"),
        ({"dampening": 0.1}, "local.dampening: dampens what the momentum takes in"),
        ({"momentum": 0.9, "nesterov": True, "dampening": 0.1}, "local.dampening: Nesterov's momentum has none"),
        ({"optimizer": "asgd", "state": "keep"}, "local.state: asgd starts anew in every round"),
        (
            {"optimizer": "sam", "base": "asgd"},
            "local.base: sam moves the weights around a step .*, and asgd within it; choose",
        ),
        (
            {"optimizer": "asam", "momentum": 0.9, "nesterov": True, "nesterov_form": "look-ahead"},
            'and sgd within it; leave out nesterov_form = "look-ahead"',
        ),
        ({"optimizer": "lbfgs"}, "local.batch_size: lbfgs compares the gradients of successive steps"),
        ({"optimizer": "lbfgs", "batch_size": "full", "state": "average"}, "local.state: lbfgs starts anew"),
        ({"optimizer": "saga"}, "local.batch_size: saga keeps a gradient of each sample; set it to 1"),
        ({"optimizer": "sam", "base": "newton"}, "local.base: newton takes steps that sam cannot be put around"),
        (
            {"optimizer": "lion", "state": "average-v"},
            "needs an optimizer with a second moment, such as adamw; lion has",
        ),
    ],
)
def test_what_does_not_go_together_gets_a_sentence(keys: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidExperiment, match=sentence):
        fedopt.Experiment(local=keys)


STATEFUL: dict[str, dict[str, Any]] = {
    "dampening": {"optimizer": "sgd", "momentum": 0.8, "dampening": 0.3},
    "averaged-gradient": {"optimizer": "averaged-gradient"},
    "asgd": {"optimizer": "asgd", "lambd": 0.1},
    "adagrad": {"optimizer": "adagrad"},
    "rmsprop": {"optimizer": "rmsprop", "centered": True, "momentum": 0.5},
    "nadam": {"optimizer": "nadam"},
    "radam": {"optimizer": "radam", "betas": (0.9, 0.99)},
    "lion": {"optimizer": "lion"},
    "lookahead": {"optimizer": "lookahead", "base": "nadam", "sync_period": 2},
    "larc": {"optimizer": "larc", "momentum": 0.9},
    "lars": {"optimizer": "lars", "momentum": 0.9},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", STATEFUL)
def test_a_lane_has_the_same_bits_beside_any_number_of_lanes(name: str, dtype: torch.dtype) -> None:
    """33 lanes: exponentials of one number a lane would take the code of full SIMD vectors there."""
    generator, size = torch.Generator().manual_seed(0), 256
    starts, centers = torch.randn(2, 33, size, generator=generator, dtype=dtype)
    ends = []
    for lanes in (33, 1):
        theta = starts[:lanes].clone()
        steps(theta, Parabolas(theta, centers), [LR] * 7, **STATEFUL[name])
        ends.append(theta)
    assert ends[0][:1].equal(ends[1])


@pytest.mark.parametrize("name", [*STATEFUL, "nesterov-look-ahead", "larc-scale", "lbfgs"])
def test_lanes_may_have_rates_of_their_own(name: str) -> None:
    """As a schedule that depends on the client would give: lane i has 1 / (1 + i) of each rate."""
    others = {
        "nesterov-look-ahead": LINEAR["look-ahead"],
        "larc-scale": {"optimizer": "larc", "mode": "scale", "momentum": 0.9, "weight_decay": 0.1},
        "lbfgs": {"optimizer": "lbfgs", "batch_size": "full"},
    }
    keys = STATEFUL.get(name) or others[name]
    starts, centers = torch.randn(2, 3, SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    per_step = [LR / (1 + step) for step in range(5)]
    theta = starts.clone()
    _, lanes = built(theta, **keys)
    lanes.begin(3, PerLane(per_step, 3))
    for _ in per_step:
        lanes.step(Parabolas(theta, centers))
    for lane in range(3):
        alone = starts[lane : lane + 1].clone()
        steps(alone, Parabolas(alone, centers[lane : lane + 1]), [rate / (1 + lane) for rate in per_step], **keys)
        assert torch.allclose(theta[lane], alone[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in STATEFUL if name not in ("asgd", "lookahead")])
def test_moments_load_to_the_bit(name: str) -> None:
    """Seven steps, or three and then four from the moments of the three."""
    theta = torch.zeros(1, SIZE, dtype=torch.float64)
    gradient = Given(torch.linspace(-1, 1, SIZE, dtype=torch.float64)[None])
    if name in ("averaged-gradient", "dampening", "lars", "larc"):
        gradient = Parabolas(theta, torch.ones(1, SIZE, dtype=torch.float64))  # type: ignore[assignment]
    whole = steps(theta, gradient, [LR] * 7, **STATEFUL[name])
    end, theta_moments = theta.clone(), {key: value.clone() for key, value in whole.moments.items()}
    theta.zero_()
    first = steps(theta, gradient, [LR] * 3, **STATEFUL[name])
    kept = {key: value.clone() for key, value in first.moments.items()}
    first.begin(1, Rates([LR] * 4, theta.dtype))
    first.load_moments(kept)
    for _ in range(4):
        first.step(gradient)
    assert theta.equal(end)
    assert all(first.moments[key].equal(value) for key, value in theta_moments.items())


@pytest.mark.parametrize("name", ["adagrad", "rmsprop", "nadam", "radam"])
@pytest.mark.parametrize("state", ["average-v", "block-v", "average", "keep"])
def test_moments_travel_and_are_kept(name: str, state: str) -> None:
    local = {"optimizer": name, "lr": 0.002, "state": state, "steps": 2}
    experiment = fedopt.Experiment(
        data={"clients": 5}, local=local, run={"rounds": 2, "participation": 1.0, "eval_every": 2}
    )
    run = fedopt.run(experiment)
    assert run.summary.final.test_accuracy is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["larc", "lars"])
def test_norms_of_tensors_are_a_lanes_own_to_the_bit(name: str, dtype: torch.dtype) -> None:
    shapes = [torch.Size(shape) for shape in ([3], [50, 31], [7, 3, 5, 5], [], [20001])]
    layout = Layout(tuple("abcde"), tuple(shapes))
    packing = Packing(layout, torch.zeros(1, dtype=dtype))
    flat = torch.randn(2, 33, layout.size, generator=torch.Generator().manual_seed(0), dtype=dtype)
    ends = []
    for lanes in (33, 5, 1):
        theta, centers = (packing.pack(rows[:lanes]).clone() for rows in flat)
        optimizer = LocalSettings(optimizer=name, momentum=0.9, weight_decay=0.1).optimizer.build(theta, packing)
        optimizer.begin(lanes, Rates([LR] * 3, dtype))
        for _ in range(3):
            optimizer.step(Parabolas(theta, centers))
        ends.append(theta)
    assert ends[0][:5].equal(ends[1])
    assert ends[0][:1].equal(ends[2])


def test_optimizers_and_schedules_have_no_key_in_common() -> None:
    """They lie flat in one section."""
    keys = {
        registry.kind: {key for kind in registry.kinds() for key in kind.model_fields} - {"name"}
        for registry in (OPTIMIZERS, SCHEDULES)
    }
    assert not keys[OPTIMIZERS.kind] & keys[SCHEDULES.kind]


def test_newton_on_a_million_parameters_says_what_memory_it_would_take() -> None:
    packing = Packing(Layout(("w",), (torch.Size([1000, 1000]),)), torch.zeros(1))
    with pytest.raises(InvalidExperiment, match=r"the Hessian of all 1,000,000 parameters, which takes 3,725\.3 GiB"):
        LocalSettings(optimizer="newton").optimizer.build(torch.zeros(1, packing.width), packing)


def test_newton_under_an_algorithm_with_several_gradients_a_step_is_refused() -> None:
    local = {"optimizer": "newton", "steps": 1, "batch_size": "full"}
    with pytest.raises(InvalidExperiment, match="steps of fedspeed follow gradients at several points"):
        fedopt.run(fedopt.Experiment(algorithm={"name": "fedspeed"}, local=local, model={"name": "logistic"}))


def test_kfac_is_for_linear_layers_and_convolutions_under_the_cross_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    local = {"optimizer": "kfac", "steps": 1}

    def sentence(**model: Any) -> str:
        with pytest.raises(InvalidExperiment) as refused:
            fedopt.run(fedopt.Experiment(local=local, model=model))
        return str(refused.value)

    if find_spec("curvlinops") is not None:
        assert "linear layers and convolutions alone, and " in sentence(name="resnet8")
        assert "kfac is for the cross-entropy" in sentence(name="logistic", label_smoothing=0.1)
    monkeypatch.setitem(sys.modules, "curvlinops", None)
    assert sentence(name="logistic") == (
        'local.optimizer: kfac needs curvlinops; install it with pip install "fedopt[kfac]"'
    )


def test_a_table_of_gradients_beyond_its_memory_is_refused() -> None:
    local = {"optimizer": "sag", "batch_size": 1, "steps": 1, "table_gib": 1e-4}
    with pytest.raises(InvalidExperiment, match=r"sag keeps a gradient of each of [\d,]+ samples, which takes"):
        fedopt.run(fedopt.Experiment(local=local, model={"name": "logistic"}))


def test_what_moves_the_weights_within_a_step_is_refused_where_the_algorithm_moves_them_between() -> None:
    algorithm = {"name": "scaffold", "correction": "outside"}
    with pytest.raises(InvalidExperiment, match="scaffold moves the weights between the steps, and asgd within them"):
        fedopt.run(fedopt.Experiment(algorithm=algorithm, local={"optimizer": "asgd"}))
