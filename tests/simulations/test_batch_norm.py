"""model.batchnorm against plain loops over modules with torch's own BatchNorm, and the same bits on every engine."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fedopt
from fedopt.data.evaluation_shares import owners_of_tests
from fedopt.data.loading import load_dataset
from tests.fuzz.reference import shared

Sections = dict[str, dict[str, Any]]
State = dict[str, Tensor]


def net(classes: int) -> nn.Module:
    """With BatchNorm behind a convolution and a linear layer, one of them without scale and shift."""
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2, bias=False),
        nn.BatchNorm2d(3, momentum=0.3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(27, 6),
        nn.BatchNorm1d(6, affine=False),
        nn.Tanh(),
        nn.Linear(6, classes),
    )


NORMS = ("1.", "5.")
"""How the names of BatchNorm begin."""


def experiment(policy: str, **sections: Any) -> fedopt.Experiment:
    """Unequal clients, whose last batches are partial."""
    given: Sections = {
        "data": {"clients": 4, "alpha": 0.5},
        "model": {"name": f"{__name__}:net", "batchnorm": policy},
        "local": {"lr": 0.05, "momentum": 0.9, "batch_size": 50, "epochs": 2},
        "run": {"rounds": 2, "cohort": 3, "dtype": "float64", "seed": 4, "device": "cpu", "workers": 1},
    }
    keys = {name: {**given.get(name, {}), **section} for name, section in sections.items()}
    return fedopt.Experiment(**{**given, **keys})


class Plain:
    """The clients as plain modules, one after the other."""

    def __init__(self, settings: fedopt.Experiment) -> None:
        self.settings, self.problem = settings, shared(settings, torch.float64)
        self.server = fractional(self.problem.module)
        sizes = [len(part) for part in self.problem.parts]
        self.p = [size / sum(sizes) for size in sizes]
        assert all(size % 50 > 1 for size in sizes), "the last batches are partial"
        assert len(set(sizes)) == 4

    def module(self, state: State) -> nn.Module:
        module = copy.deepcopy(self.problem.module)
        module.load_state_dict(state, strict=False)
        return module

    def train(self, state: State, round_: int, client: int, correction: State | None = None) -> tuple[State, State]:
        """The client's state after its steps from this one, and its mean raw gradient."""
        module, local = self.module(state).train(), self.settings.local
        optimizer = torch.optim.SGD(module.parameters(), local.lr, getattr(local.optimizer, "momentum", 0.0))
        parameters, (x, y) = dict(module.named_parameters()), self.problem.train
        raw = {name: torch.zeros_like(p) for name, p in parameters.items()}
        steps = self.problem.minibatches(round_, client)
        for rows in steps:
            optimizer.zero_grad()
            torch.autograd.backward(F.cross_entropy(module(x[rows]), y[rows]))
            for name, parameter in parameters.items():
                assert parameter.grad is not None
                raw[name] += parameter.grad / len(steps)
                parameter.grad += 0.0 if correction is None else correction[name]
            optimizer.step()
        return fractional(module), raw

    def mean(self, of_clients: dict[int, State]) -> State:
        """Over the clients of a round, weighted by their shares."""
        share = sum(self.p[i] for i in of_clients)
        first = next(iter(of_clients.values()))
        return {name: sum(self.p[i] / share * s[name] for i, s in of_clients.items()) for name in first}  # type: ignore[misc]

    def scores(self, state: State, rows: Tensor | None = None) -> tuple[float, Tensor]:
        """The loss in evaluation, and which test samples are right."""
        x, y = self.problem.test
        x, y = (x, y) if rows is None else (x[rows], y[rows])
        with torch.no_grad():
            outputs = self.module(state).eval()(x)
        return F.cross_entropy(outputs, y).item(), outputs.argmax(1) == y


def fractional(module: nn.Module) -> State:
    """A copy of the parameters and the running statistics."""
    return {name: value.detach().clone() for name, value in module.state_dict().items() if value.is_floating_point()}


def assert_equal(found: State, expected: State) -> None:
    for name, value in expected.items():
        assert torch.allclose(found[name], value, rtol=1e-12, atol=1e-13), name


def fedavg(plain: Plain) -> State:
    x = plain.server
    for round_ in range(1, plain.settings.run.rounds + 1):
        x = plain.mean({i: plain.train(x, round_, i)[0] for i in plain.problem.cohort(round_)})
    return x


def test_statistics_are_averaged_as_updates_are(tmp_path: Path) -> None:
    history = fedopt.run(experiment("average"), tmp_path / "run")
    plain = Plain(history.experiment)
    expected = fedavg(plain)
    assert_equal(history.weights, expected)
    loss, right = plain.scores(expected)
    assert history.summary.final.test_loss == pytest.approx(loss, rel=1e-12)
    assert history.summary.final.test_accuracy == pytest.approx(right.double().mean().item(), abs=1e-12)
    assert (expected["1.running_mean"] - plain.server["1.running_mean"]).abs().max() > 0.01
    evaluated = history.model()
    assert not evaluated.training
    x, y = plain.problem.test
    assert F.cross_entropy(evaluated(x), y).item() == pytest.approx(loss, rel=1e-12)


def test_pretrained_statistics_are_the_start_and_the_server_s_rate_is_none_of_them(tmp_path: Path) -> None:
    pretrained = net(10).double()
    pretrained.get_buffer("1.running_mean").copy_(torch.tensor([1.0, -2.0, 3.0]))
    safetensors.torch.save_file(pretrained.state_dict(), tmp_path / "start.safetensors")
    weights = {"weights": str(tmp_path / "start.safetensors")}
    settings = experiment("average", model=weights, algorithm={"server_lr": 0.5}, run={"rounds": 1})
    halved = fedopt.run(settings, tmp_path / "run")
    plain = Plain(halved.experiment)
    assert plain.server["1.running_mean"].tolist() == [1.0, -2.0, 3.0]
    mean = fedavg(plain)
    for name, value in halved.weights.items():
        if "running" in name:
            assert torch.allclose(value, mean[name], rtol=1e-12), name
        elif value.is_floating_point():
            assert torch.allclose(value, (plain.server[name] + mean[name]) / 2, rtol=1e-12, atol=1e-13), name


def test_scaffold_corrects_what_is_trained(tmp_path: Path) -> None:
    settings = experiment("average", algorithm={"name": "scaffold"}, local={"momentum": 0.5}, run={"rounds": 3})
    history = fedopt.run(settings, tmp_path / "run")
    plain = Plain(settings)
    x = plain.server
    zeros = {name: torch.zeros_like(p) for name, p in plain.problem.module.named_parameters()}
    c, c_i = zeros, dict.fromkeys(range(4), zeros)
    for round_ in range(1, 4):
        ends, controls = dict[int, State](), dict[int, State]()
        for i in plain.problem.cohort(round_):
            ends[i], controls[i] = plain.train(x, round_, i, {name: c[name] - c_i[i][name] for name in c})
        x = plain.mean(ends)
        c = {name: c[name] + sum(plain.p[i] * (new[name] - c_i[i][name]) for i, new in controls.items()) for name in c}
        c_i |= controls
    assert_equal(history.weights, x)
    assert history.records[-1].algorithm is not None
    assert history.records[-1].algorithm["gap"] == pytest.approx(0.0, abs=1e-12)


def fedbn(plain: Plain) -> list[State]:
    """Li et al. 2021 (arXiv:2102.07623), Algorithm 1: each client's model after the rounds."""
    x, own = plain.server, [dict(plain.server) for _ in plain.p]
    for round_ in range(1, plain.settings.run.rounds + 1):
        ends = {i: plain.train(mixed(x, own[i]), round_, i)[0] for i in plain.problem.cohort(round_)}
        x, own = plain.mean(ends), [ends.get(i, own[i]) for i in range(len(own))]
    return [mixed(x, state) for state in own]


def mixed(shared_state: State, own: State) -> State:
    return {name: own[name] if name.startswith(NORMS) else value for name, value in shared_state.items()}


@pytest.mark.parametrize("lanes", [1, 4])
def test_local_is_fedbn(lanes: int, tmp_path: Path) -> None:
    settings = experiment("local", run={"rounds": 3, "cohort": 2, "lanes": lanes})
    history = fedopt.run(settings, tmp_path / "run")
    plain = Plain(settings)
    models = fedbn(plain)
    data = load_dataset(settings.data, settings.run.seed)
    owners = torch.from_numpy(owners_of_tests(data, list(plain.problem.parts), settings.run.seed))
    right = 0
    for client, state in enumerate(models):
        assert_equal(fractional(history.model(client)), state)
        right += int(plain.scores(state, owners == client)[1].sum())
    assert history.summary.final.personal_accuracy == pytest.approx(right / len(owners), abs=1e-12)
    for name, value in history.weights.items():
        if name.startswith(NORMS):
            assert torch.equal(value, plain.problem.module.state_dict()[name]), "the server never has BatchNorm"
    assert not torch.equal(models[0]["1.weight"], models[1]["1.weight"])


@pytest.mark.parametrize(
    ("policy", "algorithm"),
    [
        ("average", "scaffold"),
        ("local", "fedavg"),
        pytest.param("average", "mime", marks=pytest.mark.slow),
        pytest.param("average", "fedspeed", marks=pytest.mark.slow),
        pytest.param("local", "fedadam", marks=pytest.mark.slow),
    ],
)
def test_lanes_workers_and_a_stop_change_no_bit(policy: str, algorithm: str, tmp_path: Path) -> None:
    def settings(**run: Any) -> fedopt.Experiment:
        local = {"momentum": 0.0, "epochs": 1}
        return experiment(policy, algorithm={"name": algorithm}, local=local, run={"rounds": 3, **run})

    alone = fedopt.run(settings(lanes=1), tmp_path / "alone")
    beside = fedopt.run(settings(lanes=4), tmp_path / "beside")
    fedopt.run(settings(workers=2, lanes=2, rounds=2), tmp_path / "workers")
    resumed = fedopt.resume(tmp_path / "workers", ["run.rounds=3"])
    assert alone.summary.weights_sha256 == beside.summary.weights_sha256 == resumed.summary.weights_sha256
    assert alone.summary.final == beside.summary.final == resumed.summary.final
    if policy == "local":
        ours, theirs = alone.model(1).state_dict(), resumed.model(1).state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("optimizer", [{"optimizer": "sam", "rho": 0.0}, {"optimizer": "lookahead", "slow_step": 1.0}])
@pytest.mark.parametrize("policy", ["average", "local"])
def test_a_step_updates_statistics_once(optimizer: dict[str, Any], policy: str, tmp_path: Path) -> None:
    """SAM in a ball of radius 0 evaluates twice where SGD evaluates once; measures evaluate besides."""
    local = {"momentum": 0.5, **optimizer}
    found = fedopt.run(experiment(policy, local=local, metrics={"drift_every": 1}), tmp_path / "found")
    assert found.records[0].gradients is not None
    plain = Plain(experiment(policy, local={"momentum": 0.5}))
    if policy == "average":
        assert_equal(found.weights, fedavg(plain))
    else:
        assert_equal(fractional(found.model(2)), fedbn(plain)[2])


def test_of_sam_s_two_passes_the_first_counts(tmp_path: Path) -> None:
    """The one at the client's point and not at the perturbed one: one step, so that both start from the same x."""
    settings = experiment(
        "average", local={"optimizer": "sam", "rho": 0.5, "epochs": None, "steps": 1, "momentum": 0.0}
    )
    settings = settings.replace(run={"rounds": 1})
    history = fedopt.run(settings, tmp_path / "run")
    expected = fedavg(Plain(settings))  # whose statistics are those of a plain step
    for name, value in expected.items():
        alike = torch.allclose(history.weights[name], value, rtol=1e-12, atol=1e-13)
        assert alike == ("running" in name or name == "4.bias"), name  # a bias before BatchNorm does nothing


def test_the_divergence_is_that_of_a_plain_run_on_all_data(tmp_path: Path) -> None:
    """One client that has all data is the centralized run."""
    local = {"momentum": 0.0, "batch_size": "full"}
    one = {"metrics": {"divergence": True}, "data": {"clients": 1, "partition": "iid"}, "run": {"cohort": 1}}
    history = fedopt.run(experiment("average", local=local, **one), tmp_path / "one")
    assert history.records[-1].divergence == pytest.approx(0.0, abs=1e-12)


def test_bytes_grow_by_the_statistics_alone(tmp_path: Path) -> None:
    history = fedopt.run(experiment("average", run={"rounds": 1}), tmp_path / "run")
    numbers = sum(value.numel() for value in history.weights.values() if value.is_floating_point())
    assert history.records[0].bytes_down == 3 * 8 * numbers
    assert history.records[0].bytes_up == 2 * 3 * 8 * numbers, "with the gradients of the first round"
