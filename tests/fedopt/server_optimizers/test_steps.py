"""Server optimizers against the paper's algorithm and against torch.optim, on the same sequences of mean updates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.scaffold import Scaffold
from fedopt.optimizers.local import LocalSettings
from fedopt.server_optimizers import SERVER_OPTIMIZERS
from fedopt.server_optimizers.adagrad import ServerAdagrad
from fedopt.server_optimizers.adam import ServerAdam
from fedopt.server_optimizers.base import ServerOptimizer
from fedopt.server_optimizers.sgd import ServerSgd
from fedopt.server_optimizers.yogi import ServerYogi
from tests.fedopt.algorithms.papers.fedopt_server import Server, adaptive, fedopt, momentum, of_torch
from tests.fedopt.algorithms.papers.setting import LOCALS, PROBLEMS, errors

ETA, TAU = 0.3, 0.02

RULES: dict[str, tuple[ServerOptimizer, Callable[[], Server]]] = {
    "heavy-ball": (ServerSgd(server_momentum=0.8), lambda: momentum(ETA, 0.8, nesterov=False)),
    "nesterov": (ServerSgd(server_momentum=0.8, server_nesterov=True), lambda: momentum(ETA, 0.8, nesterov=True)),
    "adagrad": (ServerAdagrad(server_tau=TAU, server_beta=0.4), lambda: adaptive("adagrad", ETA, 0.4, 0.0, TAU)),
    "adam": (ServerAdam(server_tau=TAU, server_betas=(0.8, 0.7)), lambda: adaptive("adam", ETA, 0.8, 0.7, TAU)),
    "yogi": (ServerYogi(server_tau=TAU, server_betas=(0.8, 0.7)), lambda: adaptive("yogi", ETA, 0.8, 0.7, TAU)),
    "heavy-ball-of-torch": (
        ServerSgd(server_momentum=0.8),
        lambda: of_torch(lambda point: torch.optim.SGD(point, lr=ETA, momentum=0.8)),
    ),
    "nesterov-of-torch": (
        ServerSgd(server_momentum=0.8, server_nesterov=True),
        lambda: of_torch(lambda point: torch.optim.SGD(point, lr=ETA, momentum=0.8, nesterov=True)),
    ),
    "adagrad-of-torch": (
        ServerAdagrad(server_tau=TAU),
        lambda: of_torch(lambda p: torch.optim.Adagrad(p, lr=ETA, eps=TAU, initial_accumulator_value=TAU**2)),
    ),
}


def sequence(entries: int = 5, rounds: int = 12) -> list[Tensor]:
    """Mean updates whose squares lie on both sides of v."""
    chance = torch.Generator().manual_seed(0)
    drawn = torch.randn(rounds, entries, generator=chance, dtype=torch.float64)
    return list(drawn * torch.logspace(-3, 0, entries, dtype=torch.float64))


@pytest.mark.parametrize("rule", RULES)
def test_a_sequence_of_updates_is_stepped_as_the_paper_says(rule: str) -> None:
    optimizer, make = RULES[rule]
    x = y = torch.linspace(-1, 1, 5, dtype=torch.float64)
    state, reference = optimizer.state(x), make()
    for delta in sequence():
        before = {name: vector.clone() for name, vector in state.items()}
        x_new, new = optimizer.step(x, delta, state, ETA)
        assert all(torch.equal(state[name], before[name]) for name in before), "nothing is changed in place"
        x, state, y = x_new, new, reference(y, delta)
        assert torch.allclose(x, y, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("rule", ["heavy-ball", "nesterov", "adagrad", "adam", "yogi"])
@pytest.mark.parametrize("name", ["quadratic-unequal", "network-unequal", "network-equal"])
@pytest.mark.parametrize("cohort", [5, 2])
def test_rounds_are_those_of_the_paper(rule: str, name: str, cohort: int) -> None:
    """With unequal steps, and momentum on the clients; the server's rate is not theirs."""
    optimizer, make = RULES[rule]
    problem, local = PROBLEMS[name], LocalSettings(**LOCALS["momentum"])
    played = problem.play(FedAvg(server=optimizer, server_lr=ETA), local, cohort, 4)
    assert max(errors(played, fedopt(problem, local, cohort, 4, make()))) < 1e-10


def test_the_first_steps_by_hand() -> None:
    """D = 1, then D = -2, from x = 0 with server_lr = 0.5, tau = 3 and beta = (0.5, 0.75)."""
    two = [torch.tensor([1.0]), torch.tensor([-2.0])]
    v = {"adagrad": (10.0, 14.0), "adam": (7.0, 6.25), "yogi": (8.75, 7.75)}
    kinds: dict[str, ServerOptimizer] = {
        "adagrad": ServerAdagrad(server_tau=3.0, server_beta=0.5),
        "adam": ServerAdam(server_tau=3.0, server_betas=(0.5, 0.75)),
        "yogi": ServerYogi(server_tau=3.0, server_betas=(0.5, 0.75)),
    }
    for kind, optimizer in kinds.items():
        x, state = torch.zeros(1), optimizer.state(torch.zeros(1))
        expected = 0.0
        for delta, m, second in zip(two, (0.5, -0.75), v[kind], strict=True):
            x, state = optimizer.step(x, delta, state, 0.5)
            expected += 0.5 * m / (second**0.5 + 3)
            assert state["v"].item() == pytest.approx(second, rel=1e-6)
            assert x.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_default_is_plain_averaging_to_the_bit(dtype: torch.dtype) -> None:
    chance = torch.Generator().manual_seed(1)
    x, delta = torch.randn(2, 1000, generator=chance, dtype=dtype)
    found, state = ServerSgd().step(x, delta, ServerSgd().state(x), 0.7)
    assert found.equal(x + 0.7 * delta)
    assert not state


@pytest.mark.parametrize("kind", [FedAvg, Scaffold])
def test_a_server_optimizer_leaves_the_algorithms_own_state_alone(kind: type[Any]) -> None:
    """SCAFFOLD's c and Adam's m and v lie side by side; a first round steps along the same mean update."""
    problem, local = PROBLEMS["network-unequal"], LocalSettings(**LOCALS["unequal-steps"])
    plain, adam = (
        problem.play(kind(server=server), local, 5, 1)[0][0] for server in (ServerSgd(), ServerAdam(server_tau=1.0))
    )
    assert adam.server.keys() == plain.server.keys() | {"server.m", "server.v"}
    assert all(adam.server[name].equal(plain.server[name]) for name in plain.server)
    mean = plain.x - problem.start
    expected = problem.start + 0.1 * mean / ((0.99 + 0.01 * mean**2).sqrt() + 1.0)
    assert torch.allclose(adam.x, expected, rtol=1e-12, atol=1e-14)


def test_every_registered_one_moves_x_along_the_update() -> None:
    """The sign of the pseudo-gradient: each entry moves to the side of its update."""
    delta = torch.tensor([0.3, -0.2, 1e-4, -5.0])
    for kind in SERVER_OPTIMIZERS.kinds():
        optimizer = kind()
        x, _ = optimizer.step(torch.zeros(4), delta, optimizer.state(torch.zeros(4)), 0.1)
        assert x.sign().equal(delta.sign())
