"""Runs under schedules: the rates that algorithms read, and the same bits resumed, on lanes and on workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import fedopt

SMALL: dict[str, Any] = {
    "data": {"clients": 6},
    "model": {"name": "logistic"},
    "run": {"rounds": 4, "cohort": 3, "dtype": "float64", "workers": 1},
}


def run(out: Path | None = None, **sections: Any) -> fedopt.History:
    run_ = {**SMALL["run"], **sections.pop("run", {})}
    return fedopt.run(fedopt.Experiment(**{**SMALL, "local": {"steps": 2}, **sections, "run": run_}), out)


def test_the_servers_rate_is_that_of_the_round() -> None:
    plain, halved = run(), run(server={"schedule": "step", "step_size": 1, "gamma": 0.5})
    first, second = plain.records[:2]
    assert halved.records[0].update_norm == first.update_norm
    assert halved.records[1].update_norm == pytest.approx(second.update_norm / 2, rel=1e-12)
    warm = run(server={"warmup": 1})
    assert warm.records[0].update_norm == pytest.approx(first.update_norm / 2, rel=1e-12)


def test_server_optimizers_step_with_the_rate_of_the_round() -> None:
    """An entry of Adam's first step moves by the rate, where m / sqrt(v) is the same."""
    plain, warm = (run(algorithm={"name": "fedadam"}, server=server) for server in ({}, {"warmup": 3}))
    assert warm.records[0].update_norm == pytest.approx(plain.records[0].update_norm / 4, rel=1e-9)


def test_fedcm_and_fednova_read_the_rates_of_the_steps() -> None:
    """With alpha = 1, FedCM is FedAvg; with equal steps, so is FedNova. Both only if they know the rates."""
    local = {"steps": 3, "schedule": "cosine", "schedule_over": "all-steps", "warmup": 4}
    expected = run(local=local).weights
    for algorithm in ({"name": "fedcm", "alpha": 1.0}, {"name": "fednova"}):
        found = run(local=local, algorithm=algorithm).weights
        assert all(found[name].numpy() == pytest.approx(expected[name].numpy(), rel=1e-9) for name in expected)


PLATEAU: dict[str, Any] = {"schedule": "plateau", "gamma": 0.5, "patience": 0, "threshold": 0.9}


def test_a_plateau_of_the_server_scales_its_step() -> None:
    """The losses of the first two rounds are no ten times lower, so that the third round has half the rate."""
    plain, dropped = run().records, run(server=PLATEAU).records
    assert [record.update_norm for record in dropped[:2]] == [record.update_norm for record in plain[:2]]
    assert dropped[2].update_norm == pytest.approx(plain[2].update_norm / 2, rel=1e-12)


def test_a_run_that_goes_on_counts_no_evaluation_out_of_turn(tmp_path: Path) -> None:
    sections: dict[str, Any] = {"local": {"steps": 2, **PLATEAU}}
    whole = run(**sections, run={"rounds": 7, "eval_every": 2})
    run(tmp_path / "short", **sections, run={"rounds": 5, "eval_every": 2})  # its last round is evaluated, too
    longer = fedopt.resume(tmp_path / "short", ["run.rounds=7"])
    assert longer.records[4].test_loss is not None
    assert whole.records[4].test_loss is None
    assert longer.summary.weights_sha256 == whole.summary.weights_sha256


CASES: dict[str, dict[str, Any]] = {
    "cosine over all steps": {
        "algorithm": {"name": "scaffold"},
        "local": {"steps": 3, "schedule": "cosine", "schedule_over": "all-steps", "warmup": 2, "momentum": 0.5},
        "server": {"schedule": "polynomial"},
    },
    "plateau": {
        "algorithm": {"name": "fedacg"},
        "local": {"steps": 2, "schedule": "plateau", "gamma": 0.5, "patience": 0, "threshold": 0.9},
        "server": {"schedule": "plateau", "gamma": 0.9, "patience": 0, "threshold": 0.9},
    },
}


def test_records_have_the_rates_that_change() -> None:
    local = {"steps": 2, "lr": 0.1, "schedule": "exponential", "gamma": 0.5}
    falling = run(local=local, server={"warmup": 1})
    assert [record.lr for record in falling.records] == [0.1, 0.05, 0.025, 0.0125]
    assert [record.server_lr for record in falling.records] == [0.5, 1, 1, 1]
    plateaus = run(local={"schedule": "plateau", "lr": 0.1, "gamma": 0.5, "patience": 0, "threshold": 0.9})
    assert [record.lr for record in plateaus.records] == [0.1, 0.1, 0.05, 0.025]
    assert {(record.lr, record.server_lr) for record in run().records} == {(None, None)}


@pytest.mark.parametrize("name", CASES)
def test_the_bits_are_the_same_resumed_on_lanes_and_on_workers(name: str, tmp_path: Path) -> None:
    whole = run(**CASES[name])
    expected = whole.summary.weights_sha256
    assert expected != run(**{**CASES[name], "local": {"steps": 2}, "server": {}}).summary.weights_sha256

    def stop(record: fedopt.RoundRecord) -> None:
        if record.round == 2:
            raise fedopt.StopRun

    experiment = fedopt.Experiment(**{**SMALL, **CASES[name]})
    fedopt.run(experiment, tmp_path / "stopped", observers=[stop])
    resumed = fedopt.resume(tmp_path / "stopped")
    assert resumed.summary.weights_sha256 == expected
    assert run(**CASES[name], run={"lanes": 2}).summary.weights_sha256 == expected
    assert run(**CASES[name], run={"workers": 2}).summary.weights_sha256 == expected
