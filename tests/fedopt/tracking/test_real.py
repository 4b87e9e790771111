"""The real tools: MLflow's SQLite file, W&B's offline directory and TensorBoard's event files, read back."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import fedopt
from fedopt.tracking import MLflow, TensorBoard, WandB
from tests.commands import fedopt as command
from tests.commands import start
from tests.fedopt.tracking.offline_run import complete_records
from tests.processes import apart_in

SETTINGS: dict[str, Any] = {"algorithm": {"name": "scaffold"}, "metrics": {"drift": "layers", "drift_every": 2}}
EXPERIMENT = fedopt.Experiment(**SETTINGS, run={"rounds": 3, "workers": 1})


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def runs_of(client: Any) -> list[Any]:
    return list(client.search_runs([client.get_experiment_by_name("fedopt").experiment_id]))


def stop(record: object) -> None:
    raise fedopt.StopRun


with_trackers = apart_in("trackers", "spawn")
"""Their packages start threads, which the processes that other tests fork would not survive."""


def configure_no_tracker() -> None:
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "WANDB_"))]:
        del os.environ[name]


@with_trackers
def test_mlflow_has_the_parameters_the_metrics_and_the_files_of_one_run_that_was_stopped_and_resumed(
    tmp_path: Path,
) -> None:
    from mlflow import MlflowClient

    configure_no_tracker()
    run = tmp_path / "runs" / "first"
    fedopt.run(EXPERIMENT, run, [MLflow(), stop])
    history = fedopt.resume(run, ["run.rounds=4"], observers=[MLflow()])
    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    (found,) = runs_of(client)
    assert (found.info.run_name, found.info.status) == ("first", "FINISHED")
    assert found.info.run_id == json.loads((run / "tracking.json").read_text())["mlflow"]["id"]
    assert found.data.params["algorithm.name"] == "scaffold"
    assert found.data.params["run.rounds"] == "3"  # MLflow's parameters do not change
    assert found.data.tags["resumed.run.rounds"] == "4"
    assert found.data.tags["model"] == "mlp"
    records = lines(run)
    for name, values in {
        "train_loss": [record["train_loss"] for record in records],
        "drift/ratio": [record["drift"]["ratio"] for record in records],
        "drift/layers/1/cosine": [record["drift"]["layers"]["1"]["cosine"] for record in records],
    }.items():
        metrics = client.get_metric_history(found.info.run_id, name)
        assert [(metric.step, metric.value) for metric in metrics] == list(enumerate(values, 1))
    best = client.get_metric_history(found.info.run_id, "best/test_accuracy")[-1]
    assert (best.step, best.value) == (history.summary.best.round, history.summary.best.test_accuracy)
    names = {"experiment.toml", "summary.json", "model.safetensors", "metrics.jsonl", "report.html"}
    assert {file.path for file in client.list_artifacts(found.info.run_id)} == names
    stored = client.download_artifacts(found.info.run_id, "model.safetensors", str(tmp_path))
    assert Path(stored).read_bytes() == (run / "model.safetensors").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "runs"]

    client.delete_run(found.info.run_id)
    fedopt.resume(run, observers=[MLflow()])
    (again,) = runs_of(client)
    assert again.info.run_id != found.info.run_id
    assert [metric.step for metric in client.get_metric_history(again.info.run_id, "train_loss")] == [1, 2, 3, 4]


@with_trackers
def test_wandb_s_offline_directory_has_the_config_the_history_and_the_files(tmp_path: Path) -> None:
    configure_no_tracker()
    run = tmp_path / "run"
    fedopt.run(EXPERIMENT, run, [WandB(), stop])
    fedopt.resume(run, observers=[WandB()])
    offline = sorted((run / "wandb").glob("offline-run-*"))
    identity = json.loads((run / "tracking.json").read_text())["wandb"]["id"]
    assert len(offline) == 2
    assert all(folder.name.endswith(f"-{identity}") for folder in offline)
    steps: list[dict[str, Any]] = []
    for folder in offline:
        records = complete_records(folder / f"run-{identity}.wandb")
        (begun,) = [record.run for record in records if record.HasField("run")]
        config = {item.key: json.loads(item.value_json) for item in begun.config.update}
        assert (begun.project, begun.run_id, begun.display_name) == ("fedopt", identity, "run")
        assert config["algorithm"]["name"] == "scaffold"
        for record in records:
            if record.HasField("history"):
                items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
                steps.append({key: json.loads(value) for key, value in items.items()})
    expected = lines(run)
    assert [step["round"] for step in steps] == [1, 2, 3]
    assert [step["drift/ratio"] for step in steps] == [record["drift"]["ratio"] for record in expected]
    assert [step["test_accuracy"] for step in steps] == [record["test_accuracy"] for record in expected]
    (artifact,) = [record.artifact for record in records if record.HasField("artifact")]
    assert {entry.path for entry in artifact.manifest.contents} >= {"model.safetensors", "report.html", "summary.json"}


@with_trackers
def test_tensorboard_s_files_have_each_round_once_after_a_resume(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = tmp_path / "run"
    fedopt.run(EXPERIMENT, run, [TensorBoard(), stop])
    history = fedopt.resume(run, observers=[TensorBoard()])
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    records = lines(run)
    for tag, values in {
        "test_accuracy": [record["test_accuracy"] for record in records],
        "drift/ratio": [record["drift"]["ratio"] for record in records],
        "drift/layers/1/cosine": [record["drift"]["layers"]["1"]["cosine"] for record in records],
    }.items():
        assert [event.step for event in events.Scalars(tag)] == [1, 2, 3]
        assert [event.value for event in events.Scalars(tag)] == pytest.approx(values, rel=1e-6)
    final = events.Scalars("final/test_accuracy")[-1]
    assert final.value == pytest.approx(history.summary.final.test_accuracy, rel=1e-6)
    assert b"algorithm.name = scaffold" in events.Tensors("experiment/text_summary")[-1].tensor_proto.string_val[0]


@pytest.mark.slow
@pytest.mark.parametrize("tracker", ["mlflow", "tensorboard"])
def test_a_run_that_was_killed_and_resumed_is_one_run_with_each_round_once(tmp_path: Path, tracker: str) -> None:
    arguments = ["--set", "run.rounds=400", "--set", "run.checkpoint_every=25", "--track", tracker]
    killed = start(["run", *arguments, "--out", "run", "-q"], cwd=tmp_path)
    file, give_up = tmp_path / "run" / "tracking.json", time.monotonic() + 240
    while not (file.exists() and json.loads(file.read_text())[tracker]["round"] > 30):
        assert killed.poll() is None, killed.communicate()
        assert time.monotonic() < give_up
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    before = json.loads(file.read_text())[tracker]
    done = command("run", "--resume", "run", "--track", tracker, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    after = json.loads(file.read_text())[tracker]
    assert (after["id"], after["round"]) == (before["id"], 400)
    if tracker == "mlflow":
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
        (found,) = runs_of(client)
        steps = [metric.step for metric in client.get_metric_history(after["id"], "train_loss")]
        assert found.info.status == "FINISHED"
    else:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(tmp_path / "run" / "tensorboard"), {"scalars": 0})
        events.Reload()
        steps = [event.step for event in events.Scalars("train_loss")]
    assert Counter(steps) == Counter(range(1, 401))
