"""What of BatchNorm is refused, and with which sentence; trials leave the statistics as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fedopt
from clients.lanes.choice import choose_backend
from fedopt.algorithms import ALGORITHMS
from fedopt.algorithms.fedavg import FedAvg
from fedopt.errors import InvalidExperiment
from fedopt.models.activations import activations
from fedopt.models.build import build_model
from fedopt.models.tasks import make_task
from fedopt.round.batchnorm import BatchNorms
from fedopt.vectors.layout import Layout, fingerprint, state_of
from tests.fuzz.models.unfaithful import batch_norm

AROUND: dict[str, nn.Module] = {
    "plain": nn.BatchNorm1d(6),
    "no_momentum": nn.BatchNorm1d(6, momentum=None),
    "no_statistics": nn.BatchNorm1d(6, track_running_stats=False),
    "synchronized": nn.SyncBatchNorm(6),
    "instance": nn.InstanceNorm1d(6, track_running_stats=True),
    "nothing": nn.Identity(),
}


def net(classes: int, around: str = "plain") -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), AROUND[around], nn.ReLU(), nn.Linear(6, classes))


def build(around: str, policy: str) -> nn.Module:
    settings = fedopt.Experiment(model={"name": f"{__name__}:net", "around": around, "batchnorm": policy})
    return build_model(settings.model, (1, 8, 8), 10, 0)


@pytest.mark.parametrize(
    ("around", "policy", "told"),
    [
        ("plain", "refuse", r'averaged; model\.norm = "group" .* instead, or say with model\.batchnorm = "average" or'),
        ("no_momentum", "average", r"^model\.batchnorm: .* at 2, BatchNorm1d averages over all batches .* a momentum$"),
        ("no_statistics", "local", r"^model\.batchnorm: .* BatchNorm1d has no running .* track_running_stats to True$"),
        ("synchronized", "average", r"^model\.batchnorm: .* SyncBatchNorm computes statistics over several processes"),
        ("instance", "average", r"^model\.batchnorm: .* InstanceNorm1d keeps running .* track_running_stats to False$"),
        ("nothing", "average", r"^model\.batchnorm: .* has no BatchNorm; leave out batchnorm$"),
        ("instance", "refuse", r"use nn\.GroupNorm or nn\.LayerNorm instead$"),
    ],
)
def test_layers_are_refused_with_the_reason(around: str, policy: str, told: str) -> None:
    with pytest.raises(InvalidExperiment, match=told):
        build(around, policy)


@pytest.mark.parametrize(
    ("policy", "sections", "told"),
    [
        ("average", {"algorithm": "ditto"}, "ditto gives clients models of their own, without statistics"),
        ("local", {"algorithm": "fedper"}, "fedper gives clients models of their own, without statistics"),
        ("local", {"algorithm": "scaffold"}, 'plain local steps, such as fedavg .*; with scaffold, choose "average"'),
        ("local", {"algorithm": "central"}, 'central has one client, whose BatchNorm would stay .* "average"'),
        ("local", {"local": {"momentum": 0.9, "state": "average"}}, "local.state = average averages the moments"),
        ("local", {"metrics": {"divergence": True}}, "of which metrics.divergence knows nothing; leave it out"),
        (
            "average",
            {"channel": {"stages": ["tests.outside.stage:EightBits"]}},
            'leave out channel.stages, or .* "local"',
        ),
        ("mean", {}, "must be 'refuse', 'local' or 'average'|refuse"),
    ],
)
def test_combinations_are_refused_with_the_reason(policy: str, sections: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidExperiment, match=rf"^model\.batchnorm: .*({told})"):
        fedopt.Experiment(model={"name": f"{__name__}:net", "batchnorm": policy}, **sections)


def test_local_is_for_the_algorithms_that_the_docs_name() -> None:
    found = set()
    for name in ALGORITHMS:
        try:
            fedopt.Experiment(
                model={"name": f"{__name__}:net", "batchnorm": "local"}, algorithm=name, run={"participation": 1.0}
            )
        except InvalidExperiment:
            continue
        found.add(name)
    steps = {"fedavg", "fedavgm", "fedadagrad", "fedadam", "fedyogi", "fedexp", "fedsgd", "fedsam", "diloco"}
    assert found == steps


def run_on_numbers(sizes: list[int], local: dict[str, Any], out: Path, **sections: Any) -> fedopt.History:
    """One round over clients of these sizes, of a module with BatchNorm1d."""
    rng, n = np.random.default_rng(0), sum(sizes)
    x, y, clients = rng.standard_normal((n, 4)), np.arange(n) % 2, np.repeat(np.arange(len(sizes)), sizes)
    settings = fedopt.Experiment(
        model={"batchnorm": "average"},
        local={"epochs": 1, **local},
        run={"rounds": 1, "participation": 1.0, "workers": 1, "device": "cpu", "dtype": "float64"},
        **sections,
    )
    return fedopt.run(settings, out, data=fedopt.Data(x, y, x[:8], y[:8], clients), model=batch_norm((4,), 2))


@pytest.mark.parametrize("optimizer", ["newton", "kfac"])
def test_curvature_is_refused(optimizer: str, tmp_path: Path) -> None:
    local = {"optimizer": optimizer, "batch_size": "full"}
    with pytest.raises(InvalidExperiment, match=rf"^local\.optimizer: {optimizer} needs .* which BatchNorm mixes"):
        run_on_numbers([9, 8], local, tmp_path / "run")


def test_a_minibatch_of_one_sample_is_refused_before_the_first_round(tmp_path: Path) -> None:
    told = (
        r"^model\.batchnorm: a client with 9 samples has .* \(local\.batch_size = 4\), .* choose local\.batch_size = 5,"
    )
    with pytest.raises(InvalidExperiment, match=told):
        run_on_numbers([10, 9], {"batch_size": 4}, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    assert run_on_numbers([10, 9], {"batch_size": 5}, tmp_path / "other").finished
    assert run_on_numbers([10, 9], {"batch_size": 4, "epochs": None, "steps": 2}, tmp_path / "steps").finished
    with pytest.raises(InvalidExperiment, match=r"samples has a minibatch of one \(local\.batch_size = 1\)"):
        run_on_numbers([10, 9], {"batch_size": 1}, tmp_path / "ones")


def test_a_full_gradient_never_passes_over_one_sample_alone(tmp_path: Path) -> None:
    """257 samples in passes of 256: the gradients of 255 and of 2 samples, each normalized by its own statistics."""
    history = run_on_numbers([257], {"batch_size": "full", "lr": 1e-3}, tmp_path / "run", algorithm="fedlin")
    rng = np.random.default_rng(0)
    x, y = torch.from_numpy(rng.standard_normal((257, 4))), torch.arange(257) % 2
    module = build_model(history.experiment.model, (4,), 2, 0).double().train()
    expected = torch.zeros(1, dtype=torch.float64)
    for rows in (slice(0, 255), slice(255, 257)):
        loss = F.cross_entropy(module(x[rows]), y[rows], reduction="sum") / 257
        gradients = torch.autograd.grad(loss, list(module.parameters()))
        expected = expected + torch.cat([gradient.reshape(-1) for gradient in gradients])
    assert history.records[0].gradients is not None
    assert history.records[0].gradients.norm == pytest.approx(float(expected.norm()), rel=1e-10)


def test_initial_statistics_are_those_of_the_module() -> None:
    module = batch_norm((1, 8, 8), 10)
    module.get_buffer("2.running_mean").copy_(torch.arange(8.0))
    layout = Layout.with_statistics(module)
    flat = layout.flatten(module)
    assert layout.names[-2:] == ("2.running_mean", "2.running_var")
    assert flat[-16:].tolist() == [*range(8), *[1.0] * 8]
    assert fingerprint(state_of(module, layout, flat)) == fingerprint(module.state_dict())
    other = batch_norm((1, 8, 8), 10)
    layout.write(other, flat)
    assert fingerprint(other.state_dict()) == fingerprint(module.state_dict())
    norms = BatchNorms.of("local", module, FedAvg())
    assert int(norms.own(flat).sum()) == 4 * 8


def test_trials_before_the_run_leave_the_statistics_as_they_are() -> None:
    settings = fedopt.Experiment(model={"name": f"{__name__}:net", "batchnorm": "average"})
    torch.manual_seed(1)
    x, y = torch.randn(6, 1, 8, 8), torch.arange(6)
    module = build_model(settings.model, (1, 8, 8), 10, 0)
    assert module.get_buffer("2.running_mean").eq(0).all()
    assert module.get_buffer("2.num_batches_tracked") == 0
    before = fingerprint(module.state_dict())
    task = make_task(settings.model, module, x, y)
    choice = choose_backend("auto", task, x, y)
    activations(module, x[:1])
    assert (choice.backend, choice.why) == ("each", "the others do not carry BatchNorm's running statistics")
    assert fingerprint(module.state_dict()) == before
    assert module.training
    for backend in ("stacked", "vmap"):
        with pytest.raises(InvalidExperiment, match=rf"^run\.backend: {backend} does not carry BatchNorm's running"):
            choose_backend(backend, task, x, y)
