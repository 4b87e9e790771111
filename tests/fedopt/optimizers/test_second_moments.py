"""`local.state` = average-v and block-v: Adam's second moment travels, the first starts anew."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import fedopt
from clients.lanes.packing import Packing
from fedopt.algorithms.fedavg import FedAvg
from fedopt.errors import InvalidExperiment
from fedopt.optimizers.adam import Adam
from fedopt.optimizers.local import LocalSettings
from fedopt.optimizers.moments import Moments, take_block_means
from fedopt.vectors.layout import Layout
from tests.fedopt.algorithms.papers.setting import PROBLEMS, Problem, errors

BETA1, BETA2, EPS, LR = 0.8, 0.95, 1e-3, 0.02
BLOCKS = {"network": [12, 4, 12, 3], "quadratic": [4]}
"""Sizes of the parameter tensors."""


def block_means(v: Tensor, sizes: list[int]) -> Tensor:
    return torch.cat([block.mean().expand(len(block)) for block in torch.split(v, sizes)])


def plainly(problem: Problem, local: LocalSettings, cohort: int, rounds: int, sizes: list[int]) -> Iterator[Tensor]:
    """x after each round of FedAvg with AdamW; k are the steps of the round, t those that v has seen."""
    assert isinstance(local.optimizer, Adam)
    decay = local.optimizer.weight_decay
    x, p = problem.start, problem.weights()
    v_bar, t_bar = torch.zeros_like(x), 0.0
    for round_, clients in problem.rounds(cohort, rounds):
        share, ys, vs, ts = p[clients] / p[clients].sum(), [], [], []
        for i in clients:
            y, m, v, t = x.clone(), torch.zeros_like(x), v_bar.clone(), t_bar
            for k, batch in enumerate(problem.batches(local, round_, i), start=1):
                g, t = problem.gradient(i, y, batch), t + 1
                m, v = BETA1 * m + (1 - BETA1) * g, BETA2 * v + (1 - BETA2) * g**2
                m_hat, v_hat = m / (1 - BETA1**k), v / (1 - BETA2**t)
                y = y - LR * (m_hat / (v_hat.sqrt() + EPS) + decay * y)
            ys.append(y)
            vs.append(block_means(v, sizes) if local.state == "block-v" else v)
            ts.append(t)
        x = x + share @ (torch.stack(ys) - x)
        v_bar, t_bar = share @ torch.stack(vs), float(share @ torch.tensor(ts, dtype=torch.float64))
        yield x


def settings(state: str) -> LocalSettings:
    keys = {"optimizer": "adamw", "betas": (BETA1, BETA2), "eps": EPS, "weight_decay": 0.1, "lr": LR, "state": state}
    return LocalSettings(epochs=2, batch_size=3, **keys)


@pytest.mark.parametrize("state", ["average-v", "block-v"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_rounds_are_those_of_a_plain_loop(name: str, state: str) -> None:
    problem, sizes = PROBLEMS[name], BLOCKS[name.split("-")[0]]
    found = problem.play(FedAvg(), settings(state), 3, 4)
    expected = list(plainly(problem, settings(state), 3, 4, sizes))
    assert max(errors(found, expected)) < 1e-9
    other = settings({"average-v": "block-v", "block-v": "average-v"}[state])
    assert max(errors(found, plainly(problem, other, 3, 4, sizes))) > 1e-4


@pytest.mark.parametrize("state", ["average-v", "block-v"])
def test_under_sam_it_is_the_bases_second_moment(state: str) -> None:
    problem = PROBLEMS["network-unequal"]
    keys = {"betas": (BETA1, BETA2), "lr": LR, "state": state, "steps": 3, "batch_size": 3}
    plain = problem.play(FedAvg(), LocalSettings(optimizer="adam", **keys), 3, 3)
    for wrapper in ("sam", "asam"):
        wrapped = problem.play(FedAvg(), LocalSettings(optimizer=wrapper, base="adam", rho=0.0, **keys), 3, 3)
        assert max(errors(wrapped, [state.x for state, _, _ in plain])) < 1e-12


@pytest.mark.parametrize("state", ["average-v", "block-v"])
def test_lanes_change_no_digit(state: str) -> None:
    problem, local = PROBLEMS["network-unequal"], settings(state)
    ends = [problem.play(FedAvg(), local, 4, 3, lanes=lanes)[-1][0] for lanes in (1, 2, 5)]
    for name in ("optimizer.exp_avg_sq", "optimizer.step"):
        assert all(end.server[name].equal(ends[0].server[name]) for end in ends)
    assert all(end.x.equal(ends[0].x) for end in ends)


def test_block_means_are_one_number_for_each_parameter_and_leave_gaps_zero() -> None:
    layout = Layout(("w", "b", "s"), (torch.Size((2, 3)), torch.Size((5,)), torch.Size(())))
    packing = Packing(layout, torch.zeros(1, dtype=torch.float64))
    flat = torch.arange(24.0, dtype=torch.float64).view(2, 12) ** 2
    rows = packing.pack(flat)
    take_block_means(rows, packing)
    expected = torch.stack([block_means(lane, [6, 5, 1]) for lane in flat])
    assert torch.allclose(packing.unpack(rows), expected, rtol=1e-15)
    assert packing.pack(packing.unpack(rows)).equal(rows)


def test_the_second_moment_and_its_count_travel_and_nothing_else() -> None:
    moments = Moments.of(LocalSettings(optimizer="adam", state="block-v"))
    assert moments.sends_up == ("optimizer.exp_avg_sq", "optimizer.step")
    assert moments.client_state(torch.zeros(2)) == {}


@pytest.mark.parametrize(
    ("local", "title"),
    [
        ({"optimizer": "sgd", "momentum": 0.9}, "sgd"),
        ({"optimizer": "sam"}, r"sam\(sgd\)"),
        ({"optimizer": "muon"}, "muon"),
    ],
)
@pytest.mark.parametrize("state", ["average-v", "block-v"])
def test_an_optimizer_without_a_second_moment_is_refused(local: dict[str, object], title: str, state: str) -> None:
    message = rf"^local\.state: {state} needs an optimizer with a second moment, such as adamw; {title} has none"
    with pytest.raises(InvalidExperiment, match=message):
        fedopt.Experiment(local={**local, "state": state})
