"""Models of a run by name. A client's next model is, bit for bit, that of the run when it goes on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fedopt
from clients.lanes.training import Job, LaneTrainer, Result
from fedopt.errors import BrokenRun, DataUnavailable, InvalidExperiment
from fedopt.round.federation import Broadcast
from fedopt.round.selection import select_cohort
from fedopt.vectors.layout import Layout
from simulations.analysis.runs.next_round import NextRound
from simulations.analysis.runs.of_run import AnalyzedRun
from simulations.analysis.runs.points import Points

ROUNDS = 3

CASES: dict[str, dict[str, Any]] = {
    "fedavg": {"local": {"momentum": 0.9, "epochs": "uniform(1, 3)", "stragglers": 0.5, "schedule": "cosine"}},
    "scaffold": {"algorithm": {"name": "scaffold", "server_lr": 0.8}, "run": {"dtype": "float64"}},
    "kept moments": {"algorithm": {"name": "scaffold"}, "local": {"optimizer": "adam", "lr": 0.01, "state": "keep"}},
    "a survey": {"algorithm": {"name": "fedlin"}},
    "global momentum": {"algorithm": {"name": "fedcm"}, "local": {"flip": True, "steps": 4}},
    "stages": {"channel": {"stages": [{"name": "tests.outside.stage:EightBits"}]}},
    "own models": {"algorithm": {"name": "ditto"}},
    "after the loss": {"local": {"schedule": "plateau", "gamma": 0.5, "patience": 0, "threshold": 0.9}},
}


def experiment(rounds: int = ROUNDS, run: Mapping[str, Any] = {}, **sections: dict[str, Any]) -> fedopt.Experiment:
    return fedopt.Experiment(
        data={"clients": 5, "alpha": 1.0},
        model={"name": "mlp", "hidden": [8]},
        run={"rounds": rounds, "cohort": 3, "device": "cpu", "keep_models": 1, "workers": 1, **run},
        **sections,
    )


@contextmanager
def recording() -> Iterator[dict[tuple[int, int], tuple[Tensor, Tensor]]]:
    """Within, x and the displacement before it is sent, by round and client, as clients compute them."""
    found: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
    train = LaneTrainer.train

    def noting(self: LaneTrainer, broadcast: Broadcast, jobs: Sequence[Job]) -> list[Result]:
        results = train(self, broadcast, jobs)
        if not broadcast.survey:
            for result in results:
                dx = result.up["dx"].clone()
                found[broadcast.round, result.order.client] = broadcast.x.clone(), dx
        return results

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LaneTrainer, "train", noting)
        yield found


@pytest.mark.parametrize("case", CASES)
def test_a_clients_next_model_is_that_of_the_run_when_it_goes_on(case: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    fedopt.run(experiment(**CASES[case]), out)
    run = AnalyzedRun.read(out)
    points, next_round = Points(run), NextRound(run.history, run.setup)
    cohort = select_cohort(5, 3, 0, ROUNDS + 1)
    works = {client: next_round.after_the_last(client) for client in cohort}
    found = {client: points.at(f"client:{client}") for client in cohort}

    with recording() as recorded:
        fedopt.resume(out, [f"run.rounds={ROUNDS + 1}"])
    assert sorted(recorded) == [(ROUNDS + 1, client) for client in cohort]
    for client in cohort:
        x, dx = recorded[ROUNDS + 1, client]
        assert torch.equal(works[client].result.up["dx"], dx)
        assert works[client].round == ROUNDS + 1
        torch.testing.assert_close(works[client].model, x + dx, rtol=1e-6, atol=1e-7)
        assert torch.equal(found[client].w, works[client].model.double())
        assert found[client].label == f"client {client}"
    assert not torch.equal(found[cohort[0]].w, found[cohort[1]].w)


def test_a_clients_model_after_a_saved_round(tmp_path: Path) -> None:
    """Of a method whose rounds start from the model alone; its server may keep what it likes."""
    out = tmp_path / "run"
    with recording() as recorded:
        stages = {"stages": [{"name": "tests.outside.stage:EightBits"}]}
        fedopt.run(experiment(algorithm={"name": "fedavgm"}, channel=stages), out)
    points = Points(AnalyzedRun.read(out))
    for (round_, client), (x, dx) in recorded.items():
        found = points.at(f"client:{client}@{round_ - 1}")
        assert torch.equal(found.w, (x + dx).double()) or torch.allclose(found.w, (x + dx).double(), atol=1e-7)
        assert found.label == f"client {client} in round {round_}"
        start = points.at("initial" if round_ == 1 else f"round:{round_ - 1}")
        assert torch.equal(start.w, x.double())
        assert start.round == round_ - 1
    assert torch.equal(points.at(f"client:1@{ROUNDS}").w, points.at("client:1").w)


def test_before_the_first_round_every_state_is_known(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with recording() as recorded:
        fedopt.run(experiment(rounds=2, algorithm={"name": "scaffold"}, run={"dtype": "float64"}), out)
    points = Points(AnalyzedRun.read(out))
    client = min(client for round_, client in recorded if round_ == 1)
    x, dx = recorded[1, client]
    torch.testing.assert_close(points.at(f"client:{client}@0").w, x + dx, rtol=1e-12, atol=1e-14)
    with pytest.raises(InvalidExperiment) as refused:
        points.at("client:2@1")
    assert str(refused.value) == (
        "client:2@1: a round of scaffold starts from more than the model (c, c_i), which a run has after its last "
        "round alone; client:2 is its model then"
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("points") / "run"
    fedopt.run(experiment(rounds=5, run={"keep_models": 2}), out)
    return out


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("finl", r"'finl' is no model of .*run: did you mean final\? \(one of initial, final, round:2, round:4, rou"),
        ("round:3", r"round 3: .*run has the models of rounds 2, 4, 5 alone, as run.keep_models says"),
        ("round:x", r"'round:x' names no model; write a number, as in round:20"),
        ("client:5", "client:5: the run has clients 0 to 4"),
        ("client:1@3", r"round 3: .*run has the models of rounds 2, 4, 5 alone"),
        ("client:-1", "'client:-1' names no model; write a number, as in client:3"),
        ("own:1", "own:1: fedavg gives clients no models of their own; client:1 is this client's model after its work"),
        ("runs/none", "runs/none holds no run"),
    ],
)
def test_what_no_name_stands_for_is_refused_in_a_sentence(name: str, sentence: str, finished: Path) -> None:
    with pytest.raises(InvalidExperiment, match=sentence):
        Points(AnalyzedRun.read(finished)).at(name)


def test_models_of_the_run_and_of_another(finished: Path, tmp_path: Path) -> None:
    other = fedopt.run(experiment(rounds=1, run={"seed": 1}), tmp_path / "other")
    points, history = Points(AnalyzedRun.read(finished)), fedopt.load(finished)

    def flat(module: nn.Module) -> Tensor:
        return torch.cat([parameter.detach().reshape(-1) for parameter in module.parameters()]).double()

    assert torch.equal(points.at("final").w, flat(history.model()))
    assert torch.equal(points.at("round:5").w, flat(history.model()))
    assert torch.equal(points.at("round:2").w, flat(history.model(round=2)))
    assert torch.equal(points.at(str(other.directory)).w, flat(other.model()))
    assert points.at(str(other.directory)).file_name == "other"
    assert points.at("client:3@2").file_name == "client-3-2"
    assert points.names[:5] == ["initial", "final", "round:2", "round:4", "round:5"]
    wide = fedopt.run(experiment(rounds=1).replace(model={"hidden": [9]}), tmp_path / "wide")
    with pytest.raises(InvalidExperiment, match="wide: its model has other parameters than that of"):
        points.at(str(wide.directory))


def test_a_run_whose_clients_keep_their_state_says_so(tmp_path: Path) -> None:
    out = tmp_path / "run"
    fedopt.run(experiment(rounds=1, algorithm={"name": "scaffold"}), out)
    shutil.rmtree(out / "checkpoint" / "clients")  # as in the directory of a deployed run
    points = Points(AnalyzedRun.read(out))
    with pytest.raises(BrokenRun, match=r"a next round of .*run cannot be computed: .*is missing"):
        points.at("client:0")
    assert points.at("client:0@0").round == 1
    partition = (out / "partition.json").read_text()
    (out / "partition.json").write_text(partition.replace('"sizes":[', '"sizes":[1,'))
    with pytest.raises(DataUnavailable, match="its clients had data of their own"):
        Points(AnalyzedRun.read(out)).at("client:0")


def test_batch_norms_statistics_are_those_of_the_model(tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = experiment(rounds=2).replace(
        model={"name": f"{__name__}:normalized", "batchnorm": "average"}, local={"batch_size": "full"}
    )
    with recording() as recorded:
        fedopt.run(settings, out)
        points = Points(AnalyzedRun.read(out))
        final = points.at("final").module
        moved = points.at("client:1").module
    x, dx = recorded[3, 1]
    led = x.double() + dx.double()
    layout = Layout.with_statistics(final)
    trained = layout.trained.size
    torch.testing.assert_close(layout.flatten(moved)[:trained].double(), led[:trained], rtol=1e-6, atol=1e-7)
    assert torch.equal(layout.flatten(moved)[trained:], dx[trained:]), "they travel behind the displacement"
    assert not torch.equal(layout.flatten(moved)[trained:], layout.flatten(final)[trained:])
    assert torch.equal(layout.flatten(final), x)


def normalized(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, classes))
