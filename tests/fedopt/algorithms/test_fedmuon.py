"""FedMuon against its paper, where averaged Muon stops and it does not, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from clients.lanes.backends import Backend
from fedopt.algorithms.base import Algorithm
from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.fedmuon import FedMuon
from fedopt.errors import InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.optimizers.local import LocalSettings
from fedopt.task import Task
from tests.fedopt.algorithms.papers.fedmuon import fedmuon
from tests.fedopt.algorithms.papers.setting import PROBLEMS, Problem, errors
from tests.quadratics import own_output

ROUNDS = 4
KEYS = {"optimizer": "muon", "lr": 0.02, "momentum": 0.8, "epochs": 2, "batch_size": 3}


@pytest.mark.parametrize("name", ["network-equal", "network-unequal"])
@pytest.mark.parametrize("cohort", [5, 3])
@pytest.mark.parametrize("nesterov", [True, False])
def test_rounds_are_the_papers(name: str, cohort: int, nesterov: bool) -> None:
    problem, local = PROBLEMS[name], LocalSettings(**KEYS, nesterov=nesterov, weight_decay=0.1)
    expected = list(fedmuon(problem, local, cohort, ROUNDS, 0.8))
    played = problem.play(FedMuon(server_lr=0.8), local, cohort, ROUNDS)
    assert max(errors(played, [x for x, _ in expected])) < 1e-9
    assert all(torch.allclose(s.server["c"], c, rtol=1e-9) for (s, *_), (_, c) in zip(played, expected, strict=True))


@pytest.mark.parametrize("backend", ["stacked", "vmap"])
def test_rounds_are_the_papers_side_by_side(backend: Backend) -> None:
    problem, local = PROBLEMS["network-unequal"], LocalSettings(**KEYS)
    played = problem.play(FedMuon(), local, 5, ROUNDS, backend=backend)
    assert max(errors(played, [x for x, _ in fedmuon(problem, local, 5, ROUNDS)])) < 1e-9


def test_lanes_change_no_digit() -> None:
    problem, local = PROBLEMS["network-unequal"], LocalSettings(**KEYS)
    ends = [problem.play(FedMuon(), local, 5, 3, lanes=lanes)[-1][0].x for lanes in (1, 2, 5)]
    assert all(end.equal(ends[0]) for end in ends)


def test_its_first_step_is_that_of_averaged_muon() -> None:
    """All controls are zero in the first round."""
    problem, local = PROBLEMS["network-unequal"], LocalSettings(**KEYS)
    found, plain = (problem.play(algorithm, local, 5, 2) for algorithm in (FedMuon(), FedAvg()))
    assert found[0][0].x.equal(plain[0][0].x)
    assert not torch.allclose(found[1][0].x, plain[1][0].x, rtol=1e-4)


class Slopes(Problem):
    """f_i(W) = <s_i G, W> for one 2 x 3 matrix G and s = (3, -1, -1): the objective falls along -G."""

    matrix = torch.tensor([[1.0, -2.0, 0.5], [0.3, 1.0, 2.0]], dtype=torch.float64)
    factors = 3.0, -1.0, -1.0

    @property
    def start(self) -> Tensor:
        return torch.zeros(6, dtype=torch.float64)

    def loss(self, client: int, y: Tensor, batch: Tensor | None = None) -> Tensor:
        return self.factors[client] * self.matrix.flatten() @ y

    def _engine(self) -> tuple[Task, tuple[Tensor, Tensor]]:
        samples = torch.stack([factor * self.matrix.flatten() for factor in self.factors])
        return Task(Slope(), own_output), (samples, torch.zeros(3, dtype=torch.int64))


class Slope(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2, 3, dtype=torch.float64))

    def forward(self, samples: Tensor) -> Tensor:
        return samples @ self.w.flatten()


@pytest.mark.parametrize("steps", [1, 3])
def test_averaged_muon_climbs_where_fedmuon_descends(steps: int) -> None:
    """A client's orthogonalized matrix is sign(s_i) NS(G): two of three climb, at full length. With the controls of
    the first round all clients orthogonalize the mean."""
    local = LocalSettings(optimizer="muon", momentum=0.0, nesterov=False, lr=0.1, steps=steps, batch_size="full")
    u, s, vh = torch.linalg.svd(Slopes.matrix, full_matrices=False)
    s = s / Slopes.matrix.norm()
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    length = steps * 0.1 * (u * s @ vh).flatten()
    averaged, corrected = (
        [state.x for state, _, _ in Slopes((1, 1, 1)).play(algorithm, local, 3, 4)]
        for algorithm in (FedAvg(), FedMuon())
    )
    for number in range(4):
        assert torch.allclose(averaged[number], (number + 1) / 3 * length, rtol=1e-9)
        assert torch.allclose(corrected[number], (1 / 3 - number) * length, rtol=1e-9)


@pytest.mark.slow
def test_on_a_network_fedmuon_goes_on_where_averaged_muon_hardly_moves() -> None:
    problem = PROBLEMS["network-unequal"]
    local = LocalSettings(optimizer="muon", lr=0.02, momentum=0.8, steps=2, batch_size="full")

    def ends_at(algorithm: Algorithm) -> float:
        x = problem.play(algorithm, local, 5, 60)[-1][0].x
        return float((problem.weights() @ torch.stack([problem.gradient(i, x) for i in range(5)])).norm())

    assert ends_at(FedMuon()) < 0.3 * ends_at(FedAvg())


@pytest.mark.parametrize(
    ("local", "message"),
    [
        ({"optimizer": "adamw"}, "fedmuon needs the optimizer muon, whose momentum it corrects; adamw is another one"),
        ({"state": "keep"}, "fedmuon keeps the momentum itself, as the clients' controls; leave local.state at reset"),
    ],
)
def test_another_optimizer_or_momentum_kept_twice_is_refused(local: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidExperiment, match=message):
        Experiment(algorithm={"name": "fedmuon"}, local=local)


def test_its_default_is_muon_without_nesterov_as_in_algorithm_1() -> None:
    for local in ({}, {"optimizer": "muon"}):
        found = Experiment(algorithm={"name": "fedmuon"}, local=local).local.optimizer.model_dump()
        assert (found["name"], found["nesterov"]) == ("muon", False)
    asked = Experiment(algorithm={"name": "fedmuon"}, local={"nesterov": True}).local.optimizer
    assert asked.model_dump()["nesterov"]
