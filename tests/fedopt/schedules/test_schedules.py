"""Every schedule against torch.optim.lr_scheduler or its closed form, and what the counts are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

import fedopt
from fedopt.errors import InvalidExperiment
from fedopt.optimizers.local import LocalSettings
from fedopt.schedules import SCHEDULES
from fedopt.schedules.plateau import Plateau
from tests.outside.schedule import Halving

LR, COUNTS = 0.3, 12

Torch = Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]

KEYS: dict[str, dict[str, Any]] = {
    "constant": {},
    "step": {"step_size": 3, "gamma": 0.5},
    "multi-step": {"milestones": [2, 7], "gamma": 0.2},
    "exponential": {"gamma": 0.9},
    "cosine": {"horizon": COUNTS},
    "polynomial": {"horizon": COUNTS, "power": 2.5},
    "inverse-time": {"decay_rate": 0.3},
    "plateau": {},
}

SCHEDULERS: dict[str, Torch] = {
    "constant": lambda optimizer: lr_scheduler.ConstantLR(optimizer, 1.0),
    "step": lambda optimizer: lr_scheduler.StepLR(optimizer, 3, 0.5),
    "multi-step": lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [2, 7], 0.2),
    "exponential": lambda optimizer: lr_scheduler.ExponentialLR(optimizer, 0.9),
    "cosine": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, COUNTS),
    "polynomial": lambda optimizer: lr_scheduler.PolynomialLR(optimizer, COUNTS, 2.5),
    "inverse-time": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda t: 1 / (1 + 0.3 * t)),
    "plateau": lambda optimizer: lr_scheduler.ConstantLR(optimizer, 1.0),
}


def by_torch(scheduler: Torch, warmup: int = 0, counts: int = COUNTS) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=LR)
    wanted = scheduler(optimizer)
    if warmup:
        rising = lr_scheduler.LinearLR(optimizer, 1 / (warmup + 1), 1.0, warmup)
        wanted = lr_scheduler.SequentialLR(optimizer, [rising, wanted], [warmup])
    rates = []
    for _ in range(counts):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        wanted.step()
    return rates


def test_every_schedule_has_a_case() -> None:
    assert KEYS.keys() == SCHEDULERS.keys() == set(SCHEDULES)


@pytest.mark.filterwarnings("ignore:Detected call")
@pytest.mark.parametrize("warmup", [0, 4])
@pytest.mark.parametrize("name", KEYS)
def test_over_rounds_the_rates_are_those_of_torch(name: str, warmup: int) -> None:
    rates = LocalSettings(lr=LR, schedule=name, warmup=warmup, **KEYS[name]).rates
    found = [rates.rate(round_, step) for round_ in range(1, COUNTS + 1) for step in (0, 5)]
    expected = [rate for rate in by_torch(SCHEDULERS[name], warmup) for _ in range(2)]
    assert found == pytest.approx(expected, rel=1e-12)
    assert rates.is_constant == (name == "constant" and not warmup)


@pytest.mark.parametrize("warmup", [0, 2])
@pytest.mark.parametrize("name", ["cosine", "exponential"])
def test_within_a_round_every_round_starts_anew(name: str, warmup: int) -> None:
    rates = LocalSettings(lr=LR, schedule=name, schedule_over="steps", warmup=warmup, steps=COUNTS, **KEYS[name]).rates
    expected = [LR * (t + 1) / (warmup + 1) for t in range(warmup)] + by_torch(SCHEDULERS[name])
    for round_ in (1, 9):
        assert [rates.rate(round_, step) for step in range(COUNTS)] == pytest.approx(expected[:COUNTS], rel=1e-12)


def test_over_all_steps_rounds_go_on_where_the_last_one_ended() -> None:
    local = LocalSettings(lr=LR, schedule="cosine", schedule_over="all-steps", steps=4, horizon=COUNTS)
    found = [local.rates.rate(round_, step) for round_ in (1, 2, 3) for step in range(4)]
    assert found == pytest.approx(by_torch(SCHEDULERS["cosine"]), rel=1e-12)
    assert local.rates.rate(9, 0) == found[-1] > 0  # a run that goes on keeps the last rate


def test_a_schedule_from_outside_starts_behind_the_warmup() -> None:
    rates = LocalSettings(lr=LR, schedule=Halving(), warmup=3).rates
    assert [rates.rate(round_, 2) for round_ in (4, 5, 6)] == [Halving().rate(LR, round_, 2) for round_ in (1, 2, 3)]
    assert rates.rate(1, 2) == LR / 4


@pytest.mark.parametrize(
    ("keys", "horizon"),
    [
        ({}, 40),
        ({"warmup": 5}, 35),
        ({"schedule_over": "steps", "steps": 7}, 7),
        ({"schedule_over": "all-steps", "steps": "uniform(2, 6)", "warmup": 40}, 200),
        ({"horizon": 3}, 3),
    ],
)
def test_the_horizon_is_by_default_the_end_of_what_is_counted(keys: dict[str, Any], horizon: int) -> None:
    experiment = fedopt.Experiment(local={"schedule": "cosine", **keys}, run={"rounds": 40})
    assert experiment.local.schedule.model_dump()["horizon"] == horizon
    assert fedopt.Experiment(**experiment.model_dump()) == experiment
    longer = experiment.replace(run={"rounds": 80}).local.schedule.model_dump()["horizon"]
    assert longer > horizon or keys.keys() & {"horizon"} or keys.get("schedule_over") == "steps"
    assert experiment.local.model_copy(update={"lr": 1.0}).rates.rate(1) > 0  # it still knows the horizon


def test_plateaus_drop_the_rate_as_in_torch() -> None:
    losses = [math.sin(t) / (1 + 0.1 * t) + 1 + 1e-5 * t for t in range(60)]
    for keys in ({}, {"patience": 2}, {"patience": 0, "gamma": 0.5, "threshold": 0.05, "cooldown": 3}):
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        plateau = Plateau(min_factor=0.02, **keys)
        factor = plateau.gamma
        wanted = lr_scheduler.ReduceLROnPlateau(
            optimizer, "min", factor, plateau.patience, plateau.threshold, cooldown=plateau.cooldown, min_lr=0.02
        )
        for t, loss in enumerate(losses):
            wanted.step(loss)
            assert plateau.factor_after(losses[: t + 1]) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        assert plateau.factor_after(losses) < 1


@pytest.mark.parametrize(
    ("local", "run", "lr"),
    [
        ({}, {}, 0.1),
        ({"scale_lr": "linear", "scale_lr_base": 16, "batch_size": 64}, {}, 0.4),
        ({"scale_lr": "sqrt", "scale_lr_base": 16, "batch_size": 64}, {}, 0.2),
        ({"scale_lr": "linear", "scale_lr_by": "cohort", "scale_lr_base": 2}, {"cohort": 10}, 0.5),
        ({"scale_lr": "sqrt", "scale_lr_by": "cohort", "scale_lr_base": 40}, {"cohort": 10}, 0.05),
    ],
)
def test_the_rate_grows_with_the_batch_or_the_cohort(local: dict[str, Any], run: dict[str, Any], lr: float) -> None:
    experiment = fedopt.Experiment(local={"lr": 0.1, **local}, run=run)
    assert experiment.local.rates.rate(1) == experiment.replace(run={"seed": 1}).local.rates.rate(7, 3) == lr


@pytest.mark.parametrize(
    ("sections", "complaint"),
    [
        (
            {"local": {"schedule": "cosine", "schedule_over": "steps"}},
            "local.horizon: cosine over steps needs horizon, a number of steps: with local.epochs clients' numbers of "
            "steps differ",
        ),
        (
            {"local": {"schedule": "step", "schedule_over": "all-steps"}},
            "local.schedule_over: all-steps needs local.steps, the same at every client, in place of epochs",
        ),
        (
            {"local": {"schedule": "plateau", "schedule_over": "all-steps", "steps": 3}},
            "local.schedule_over: all-steps is not for plateau, which counts rounds itself",
        ),
        (
            {"local": {"schedule": "multi-step", "milestones": [5, 5]}},
            "local.milestones: must be whole numbers above 0 in increasing order, not [5, 5]",
        ),
        ({"local": {"scale_lr": "sqrt"}}, "local.scale_lr_base: scale_lr needs the batch that local.lr is meant for"),
        (
            {"local": {"scale_lr": "sqrt", "scale_lr_base": 8, "batch_size": "full"}},
            "local.scale_lr_by: batches of all samples differ from client to client; give a batch_size",
        ),
        (
            {"server": {"schedule": "plateau"}, "run": {"rounds": 20, "eval_every": 20}},
            "server.schedule: plateau follows the test loss, which run.eval_every = 20 measures only after the last of "
            "20 rounds; lower run.eval_every",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(sections: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidExperiment) as error:
        fedopt.Experiment(**sections)
    assert str(error.value) == complaint
