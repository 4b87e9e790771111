"""`History.model(client=...)`: the model that a client uses itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import fedopt
from fedopt.data.evaluation_shares import owners_of_tests
from fedopt.data.loading import load_dataset
from fedopt.data.partition import partition
from fedopt.errors import BrokenRun, InvalidExperiment


def experiment(name: str, **run: object) -> fedopt.Experiment:
    return fedopt.Experiment(
        data={"clients": 6, "alpha": 0.3},
        model={"hidden": [8]},
        algorithm=name,
        run={"rounds": 2, "participation": 0.5, "workers": 1, **run},
    )


@pytest.mark.parametrize("name", ["local", "finetune", "fedper", "ditto"])
def test_the_clients_models_score_what_the_run_reports(name: str, tmp_path: Path) -> None:
    """Some clients have not taken part after two rounds of three."""
    history = fedopt.run(experiment(name), tmp_path / "run")
    data = load_dataset(history.experiment.data, history.experiment.run.seed)
    parts = partition(data, history.experiment.data, history.experiment.run.seed)
    owners = owners_of_tests(data, parts, history.experiment.run.seed)
    correct = 0
    for client in range(6):
        mine = torch.from_numpy(owners == client)
        with torch.no_grad():
            chosen = history.model(client)(data.x_test[mine]).argmax(1)
        correct += int((chosen == data.y_test[mine]).sum())
    assert history.summary.final.personal_accuracy == pytest.approx(correct / len(data.y_test), abs=1e-9)


def test_a_client_may_be_named(tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).random((80, 4)), np.arange(80) % 2
    data = fedopt.Data(x[:60], y[:60], x[60:], y[60:], clients=["north", "south", "west"] * 20)
    history = fedopt.run(fedopt.Experiment(algorithm="ditto", run={"rounds": 2}), tmp_path / "run", data=data)
    by_name, by_number = (history.model(client).state_dict() for client in ("south", 1))
    assert all(torch.equal(by_name[name], by_number[name]) for name in by_number)
    with pytest.raises(InvalidExperiment, match=r"^client='sout': there is no client of this name; did you mean south"):
        history.model("sout")


def test_what_is_no_client_s_model_is_refused(tmp_path: Path) -> None:
    shared = fedopt.run(experiment("fedavg"), tmp_path / "shared")
    with pytest.raises(InvalidExperiment, match=r"^client=1: fedavg gives clients no models of their own; all use"):
        shared.model(1)
    own = fedopt.run(experiment("ditto"), tmp_path / "own")
    with pytest.raises(InvalidExperiment, match=r"^client=6: the run has clients 0 to 5"):
        own.model(6)
    trained = own.records[-1].cohort[0]
    for file in (own.directory / "checkpoint" / "clients").iterdir():
        file.unlink()
    with pytest.raises(BrokenRun, match=rf"^client={trained}: its model is not in "):
        own.model(trained)
