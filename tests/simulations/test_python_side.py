"""Experiments and histories from Python: read, changed, loaded again, as tables, figures and modules."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import fedopt
from fedopt.algorithms.base import ServerRound
from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.scaffold import Scaffold
from fedopt.data.loading import load_dataset
from fedopt.errors import BrokenRun, InvalidExperiment
from fedopt.experiment.file import read_experiment
from fedopt.runs.catalog import scalars, value_of
from fedopt.runs.history import RoundRecord
from fedopt.runs.runner import Interrupted
from fedopt.vectors.layout import Vectors, fingerprint
from fedopt.vectors.totals import Totals

KEYS: dict[str, Any] = {
    "algorithm": {"name": "scaffold"},
    "run": {"rounds": 3, "cohort": 3, "eval_every": 2},
    "metrics": {"clients_every": 2},
}


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> fedopt.History:
    return fedopt.run(fedopt.Experiment(**KEYS), tmp_path_factory.mktemp("python") / "run")


def test_from_toml_reads_what_to_toml_writes(tmp_path: Path) -> None:
    experiment = fedopt.Experiment(**KEYS)
    file = tmp_path / "mine.toml"
    assert experiment.to_toml(file) == file.read_text()
    assert fedopt.Experiment.from_toml(file) == fedopt.Experiment.from_toml(str(file)) == experiment
    changed = fedopt.Experiment.from_toml(file, "run.rounds=7", "algorithm.name=fedavg")
    assert changed == read_experiment(file, ["run.rounds=7", "algorithm.name=fedavg"])
    assert (changed.run.rounds, changed.run.cohort, changed.algorithm.name) == (7, 3, "fedavg")
    with pytest.raises(InvalidExperiment, match=r"there is no experiment file .*none\.toml"):
        fedopt.Experiment.from_toml(tmp_path / "none.toml")


def test_replace_merges_into_sections() -> None:
    experiment = fedopt.Experiment(**KEYS, data={"partition": "dirichlet", "alpha": 0.3, "clients": 20})
    changed = experiment.replace(run={"rounds": 5}, algorithm="fedavg", data={"partition": "iid"})
    assert changed == fedopt.Experiment(
        algorithm={"name": "fedavg"},
        run={**KEYS["run"], "rounds": 5},
        metrics=KEYS["metrics"],
        data={"partition": "iid", "clients": 20},
    )
    assert experiment.run.rounds == 3, "an experiment does not change"
    assert experiment.replace() == experiment
    assert experiment.replace(algorithm=Scaffold(server_lr=0.5)).algorithm == Scaffold(server_lr=0.5)
    assert experiment.replace(run={"participation": 0.5}).run.cohort is None
    assert experiment.replace(local={"steps": 3}).local.epochs is None
    fine = experiment.replace(algorithm={"server_lr": 0.5})
    assert (fine.algorithm.name, fine.replace(algorithm="fedavg").algorithm.given()) == (
        "scaffold",
        {"name": "fedavg", "server_lr": 0.5},
    )
    assert fine.replace(model="logistic").model.name == "logistic"


@pytest.mark.parametrize(
    "changes",
    [
        {"run": {"round": 5}},
        {"run": {"rounds": -1, "seed": "one"}},
        {"runs": {"rounds": 5}},
        {"algorithm": {"name": "scafold"}},
        {"algorithm": {"name": 3}},
        {"run": 5},
        {"data": {"partition": "dirichlet", "alpha": -1.0}},
        {"data": {"clients": 2}, "run": {"cohort": 3}},
    ],
)
def test_replace_finds_the_mistakes_that_an_experiment_finds(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidExperiment) as expected:
        fedopt.Experiment(**changes)
    with pytest.raises(InvalidExperiment) as found:
        fedopt.Experiment().replace(**changes)
    assert str(found.value) == str(expected.value)


def test_replace_by_a_name_that_does_not_exist_suggests_one() -> None:
    with pytest.raises(InvalidExperiment, match=r"algorithm\.name: unknown algorithm 'scafold'; did you mean scaffold"):
        fedopt.Experiment().replace(algorithm="scafold")


def test_the_model_of_a_history_is_the_one_that_was_evaluated(history: fedopt.History) -> None:
    model = history.model()
    assert not model.training
    assert fingerprint(model.state_dict()) == history.summary.weights_sha256
    data = load_dataset(history.experiment.data, 0)
    with torch.no_grad():
        accuracy = (model(data.x_test).argmax(1) == data.y_test).double().mean().item()
    assert accuracy == pytest.approx(history.summary.final.test_accuracy)


def test_a_finished_run_is_loaded_as_it_was(history: fedopt.History) -> None:
    loaded = fedopt.load(history.directory)
    assert loaded == history
    assert loaded.finished
    assert fingerprint(loaded.model().state_dict()) == history.summary.weights_sha256
    assert loaded.weights.keys() == history.weights.keys()


def test_a_stopped_run_is_loaded_with_the_rounds_so_far(tmp_path: Path) -> None:
    def impatient(record: RoundRecord) -> None:
        if record.round == 3:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        fedopt.run(fedopt.Experiment(**KEYS).replace(run={"rounds": 9}), tmp_path / "run", [impatient])
    loaded = fedopt.load(tmp_path / "run")
    assert not loaded.finished
    assert [record.round for record in loaded.records] == [1, 2, 3]
    assert loaded.summary.rounds == 3
    assert loaded.summary.final.test_accuracy == loaded.records[1].test_accuracy, "round 3 was not evaluated"
    three = fedopt.run(fedopt.Experiment(**KEYS), tmp_path / "three")
    assert loaded.summary.weights_sha256 == three.summary.weights_sha256
    assert fingerprint(loaded.model().state_dict()) == three.summary.weights_sha256
    assert [row["finished"] for row in fedopt.compare([loaded, three]).table] == [0, 1]

    (tmp_path / "new").mkdir()
    with pytest.raises(InvalidExperiment, match="holds no run"):
        fedopt.load(tmp_path / "new")
    (tmp_path / "new" / "experiment.toml").write_text(fedopt.Experiment().to_toml())
    with pytest.raises(BrokenRun, match="has no evaluated round yet"):
        fedopt.load(tmp_path / "new")


def test_a_run_without_a_header_in_its_model_file_has_a_model_too(history: fedopt.History, tmp_path: Path) -> None:
    """As runs of older versions are."""
    from safetensors.torch import save_file

    (tmp_path / "experiment.toml").write_text(history.experiment.to_toml())
    save_file(history.weights, tmp_path / "model.safetensors")
    old = fedopt.History(history.experiment, tmp_path, history.records, history.summary)
    assert fingerprint(old.model().state_dict()) == history.summary.weights_sha256


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every number of parsed JSON by its dotted name."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flat(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, int | float):
        yield name, value


def test_to_pandas_has_the_numbers_of_metrics_jsonl(history: fedopt.History) -> None:
    table = history.to_pandas()
    lines = (history.directory / "metrics.jsonl").read_text().splitlines()
    assert len(table) == len(lines) == 3
    for row, line in zip(table.to_dict("records"), lines, strict=True):
        assert {name: value for name, value in row.items() if value == value} == dict(flat(json.loads(line)))
    assert list(table.columns[:3]) == ["round", "samples", "local_steps"]
    assert {"drift.ratio", "algorithm.error", "clients.worst", "drift.layers.1.ratio"} <= set(table.columns)
    for name in set(table.columns) & set(scalars()):
        assert [value_of(record, name) for record in history.records] == [
            None if value != value else value for value in table[name].tolist()
        ]


def test_plot_draws_the_records(history: fedopt.History, tmp_path: Path) -> None:
    figure = history.plot(tmp_path / "run.png")
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
    accuracy, loss, drift = figure.axes
    (line,) = accuracy.lines
    assert line.get_xdata().tolist() == [2, 3]
    assert line.get_ydata().tolist() == [100 * (r.test_accuracy or 0) for r in history.records[1:]]
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["test", "training"]
    assert drift.lines[0].get_ydata().tolist() == [r.drift.ratio for r in history.records if r.drift is not None]
    with pytest.raises(InvalidExperiment, match=r"ends in \.pdf, \.svg or \.png"):
        history.plot(tmp_path / "run.jpg")


def test_keys_that_nothing_reads_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fedopt.run(fedopt.Experiment(data={"partition": "iid", "alpha": 0.5}, run={"rounds": 1}), tmp_path / "run")
    assert "note: data.alpha is not used by iid" in caplog.text


class Forgetful(FedAvg):
    def advance(self, round_: ServerRound, x: Tensor, server: Vectors, totals: Totals) -> tuple[Tensor, Vectors]:
        return x  # type: ignore[return-value]


def test_an_algorithm_that_returns_no_state_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidExperiment, match=r"^Forgetful\.advance must return the next model, .* it returned a t"):
        fedopt.run(fedopt.Experiment(algorithm=Forgetful(), run={"rounds": 1}), tmp_path / "run")
