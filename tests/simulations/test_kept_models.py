"""run.keep_models: the model after a round is the one that a run of so many rounds ends with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import fedopt
from fedopt.errors import InvalidExperiment
from fedopt.runs.past_runs import read_run
from simulations.axes import by_settings


def experiment(rounds: int, keep_models: int = 0, algorithm: str = "scaffold") -> fedopt.Experiment:
    return fedopt.Experiment(
        data={"clients": 4},
        model={"name": "logistic"},
        algorithm={"name": algorithm, "server_lr": 0.7},
        local={"steps": 2},
        run={"rounds": rounds, "cohort": 2, "keep_models": keep_models, "checkpoint_every": 3, "workers": 1},
    )


@pytest.mark.parametrize("algorithm", ["scaffold", "ditto"])
def test_the_model_of_a_round_is_that_of_a_run_of_so_many_rounds(algorithm: str, tmp_path: Path) -> None:
    history = fedopt.run(experiment(5, keep_models=2, algorithm=algorithm), tmp_path / "kept")
    plain = fedopt.run(experiment(5, algorithm=algorithm), tmp_path / "plain")
    assert history.kept_rounds == [2, 4, 5]
    assert plain.kept_rounds == []
    assert not (tmp_path / "plain" / "models").exists()
    assert history.summary.weights_sha256 == plain.summary.weights_sha256
    for round_ in (2, 4, 5):
        short = fedopt.run(experiment(round_, algorithm=algorithm), tmp_path / f"short-{round_}")
        file = tmp_path / "kept" / "models" / f"round-{round_:06d}.safetensors"
        assert file.read_bytes() == (short.directory / "model.safetensors").read_bytes()
        loaded = history.model(round=round_).state_dict()
        assert all(torch.equal(tensor, loaded[name]) for name, tensor in load_file(file).items())


def test_a_model_that_was_not_kept_is_refused_with_those_that_were(tmp_path: Path) -> None:
    history = fedopt.run(experiment(3, keep_models=2, algorithm="ditto"), tmp_path / "run")
    with pytest.raises(InvalidExperiment, match=r"round 1: .*run has the models of rounds 2, 3 alone, as run.keep_"):
        history.model(round=1)
    with pytest.raises(InvalidExperiment, match="client=1: of clients' own models a run has the last alone"):
        history.model(1, round=2)
    without = fedopt.run(experiment(1), tmp_path / "without")
    with pytest.raises(InvalidExperiment, match=r"round 1: .*without has no models of single rounds; run.keep_models"):
        without.model(round=1)


def test_a_resumed_run_may_keep_others_and_loses_none(tmp_path: Path) -> None:
    first = fedopt.run(experiment(4), tmp_path / "run")
    assert first.kept_rounds == []
    longer = fedopt.resume(tmp_path / "run", ["run.rounds=8", "run.keep_models=3"])
    assert longer.kept_rounds == [6, 8]
    again = fedopt.resume(tmp_path / "run", ["run.rounds=9", "run.keep_models=0"])
    assert again.kept_rounds == [6, 8]
    whole = fedopt.run(experiment(9, keep_models=2), tmp_path / "whole")
    assert whole.summary.weights_sha256 == again.summary.weights_sha256
    for round_ in (6, 8):
        name = f"models/round-{round_:06d}.safetensors"
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_runs_that_keep_other_models_are_no_different_runs(tmp_path: Path) -> None:
    for name, keep in (("a", 0), ("b", 1)):
        fedopt.run(experiment(1, keep_models=keep), tmp_path / name)
    labeled = by_settings([read_run(tmp_path / name) for name in ("a", "b")])
    assert [run.labels for run in labeled] == [{}, {}]
