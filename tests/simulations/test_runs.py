"""The run directory: what is in it, and that no kill, tear, edit or Ctrl-C spoils it."""

from __future__ import annotations

import json
import math
import random
import re
import shlex
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import fedopt
from fedopt.errors import BrokenRun, InvalidExperiment, RunStopped
from fedopt.models.build import build_model
from fedopt.runs.history import RoundRecord
from fedopt.runs.runner import Interrupted
from fedopt.vectors.layout import fingerprint
from tests.commands import fedopt as command
from tests.commands import fedopt_here, start, start_warm

FILES = {
    "experiment.toml",
    "partition.json",
    "scaling.safetensors",
    "fingerprint.json",
    "metrics.jsonl",
    "model.safetensors",
    "summary.json",
    "checkpoint",
}


class Silent:
    """An observer that says nothing."""

    def started(self, directory: Path, rounds_done: int, rounds: int) -> None: ...

    def round_done(self, record: RoundRecord) -> None: ...

    def ended(self) -> None: ...


def small(algorithm: str = "scaffold", rounds: int = 4) -> fedopt.Experiment:
    return fedopt.Experiment(algorithm={"name": algorithm}, run={"rounds": rounds, "cohort": 3, "eval_every": 3})


def test_what_a_run_leaves_behind(tmp_path: Path) -> None:
    experiment = small()
    history = fedopt.run(experiment, tmp_path / "run")
    assert {file.name for file in (tmp_path / "run").iterdir()} == FILES

    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [1, 2, 3, 4]
    assert list(lines[0]) == [
        *("round", "cohort", "left_out", "samples", "local_steps", "train_loss", "test_loss", "test_accuracy"),
        *("regression", "personal_accuracy", "lr", "server_lr", "update_norm", "bytes_down", "bytes_up", "seconds"),
        *("drift", "gradients", "moments", "algorithm", "clients", "classes", "divergence"),
    ]
    assert [line["test_accuracy"] is not None for line in lines] == [False, False, True, True]
    parameters = 64 * 64 + 64 + 64 * 10 + 10
    assert all(line["bytes_down"] == 3 * 2 * 4 * parameters for line in lines)  # x and c
    vectors_up = [3, 2, 2, 3]  # dx and dc, and in the first and last round a gradient
    assert [line["bytes_up"] for line in lines] == [3 * vectors * 4 * parameters for vectors in vectors_up]

    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert list(summary) == [
        *("final", "best", "rounds", "rounds_to_target", "seconds", "seed", "device", "engine", "versions"),
        "weights_sha256",
    ]
    assert summary["final"]["test_accuracy"] == lines[-1]["test_accuracy"]

    # the model opens in the plain module, and is the one the accuracy was measured on
    module = build_model(experiment.model, (1, 8, 8), 10, seed=0)
    module.load_state_dict(load_file(tmp_path / "run" / "model.safetensors"))
    assert fingerprint(module.state_dict()) == summary["weights_sha256"] == history.summary.weights_sha256
    from fedopt.data.loading import load_dataset

    data = load_dataset(experiment.data, 0)
    with torch.no_grad():
        accuracy = (module(data.x_test).argmax(1) == data.y_test).double().mean().item()
    assert accuracy == pytest.approx(summary["final"]["test_accuracy"])

    # the resolved experiment is complete: it runs the same run again
    again = command("run", tmp_path / "run" / "experiment.toml", "--out", tmp_path / "again", "--json", "--quiet")
    assert json.loads(again.stdout)["weights_sha256"] == summary["weights_sha256"]
    assert again.stderr == ""


def test_the_first_round_that_reaches_the_target_is_recorded_and_ends_the_run_if_asked(tmp_path: Path) -> None:
    def run(stop: bool) -> fedopt.History:
        settings = {"rounds": 30, "cohort": 5, "target_accuracy": 0.5, "stop_at_target": stop}
        return fedopt.run(fedopt.Experiment(run=settings), tmp_path / str(stop))

    whole, stopped = run(False), run(True)
    reached = next(record.round for record in whole.records if (record.test_accuracy or 0) >= 0.5)
    assert whole.summary.rounds_to_target == stopped.summary.rounds_to_target == reached
    assert (whole.summary.rounds, stopped.summary.rounds) == (30, reached)


@pytest.mark.slow  # test_crashes.py, beside this file, kills a run before each of its writes, in `make test` too
@pytest.mark.parametrize("algorithm", ["fedavg", "scaffold"])
def test_killed_at_any_moment_it_ends_with_the_same_weights(tmp_path: Path, algorithm: str) -> None:
    settings = ["--set", f"algorithm.name={algorithm}", "--set", "run.rounds=200", "--set", "local.epochs=1"]
    settings += ["--set", "run.eval_every=50", "--set", "local.momentum=0.9"]
    whole = command("run", *settings, "--out", tmp_path / "whole", "--json", "--quiet")
    expected = json.loads(whole.stdout)["weights_sha256"]

    run, chance = tmp_path / "killed", random.Random(algorithm)
    process = start(["run", *settings, "--set", "run.checkpoint_every=7", "--out", run, "--quiet"])
    kills = 0
    while kills < 3:
        wait_for_rounds(run, 50 * kills + chance.randint(1, 50), process)
        time.sleep(chance.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        assert not (run / "summary.json").exists()
        process = start(["run", "--resume", run, "--quiet"])
    process.wait()
    last = command("run", "--resume", run, "--json", "--quiet")
    assert json.loads(last.stdout)["weights_sha256"] == expected
    rounds = [json.loads(line)["round"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rounds == list(range(1, 201))


def wait_for_rounds(run: Path, rounds: int, process: object) -> None:
    deadline = time.monotonic() + 60
    metrics = run / "metrics.jsonl"
    while time.monotonic() < deadline:
        if metrics.exists() and metrics.read_bytes().count(b"\n") >= rounds:
            return
        time.sleep(0.001)
    raise AssertionError(f"no {rounds} rounds within a minute: {process}")


def test_ctrl_c_saves_says_how_to_go_on_and_exits_130(tmp_path: Path) -> None:
    run = tmp_path / "it's a run"
    settings = ["--set", "algorithm.name=scaffold", "--set", "run.checkpoint_every=1000000"]
    process = start_warm(["run", *settings, "--set", "run.rounds=1000000", "--out", run])  # it never ends by itself
    wait_for_rounds(run, 20, process)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    hint = shlex.split(told.strip().rpartition("continue with: ")[2])
    assert hint == ["fedopt", "run", "--resume", str(run)]
    assert "Traceback" not in told
    done = len((run / "metrics.jsonl").read_text().splitlines())
    assert f"stopped after round {done};" in told

    rounds = ["--set", f"run.rounds={done + 10}"]
    resumed = command("run", "--resume", run, *rounds, "--json")
    shown = [int(number) for number in re.findall(rf"round (\d+)/{done + 10} ", resumed.stderr)]
    assert shown
    assert min(shown) > done, "it went on, and did not start again"
    whole = command("run", *settings, *rounds, "--out", tmp_path / "whole", "--json")
    assert json.loads(resumed.stdout)["weights_sha256"] == json.loads(whole.stdout)["weights_sha256"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("finished") / "run"
    fedopt.run(small(), run)
    return run


def copied(run: Path, to: Path) -> Path:
    for file in run.rglob("*"):
        if file.is_file():
            target = to / file.relative_to(run)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    return to


def snapshot(run: Path) -> dict[str, bytes]:
    return {str(file.relative_to(run)): file.read_bytes() for file in run.rglob("*") if file.is_file()}


@pytest.mark.parametrize("damage", ["cut", "flip", "gone", "empty"])
@pytest.mark.parametrize("which", ["checkpoint.json", "server-*", "clients/client-*"])
def test_a_torn_or_edited_checkpoint_is_named_and_not_touched(
    finished: Path, tmp_path: Path, which: str, damage: str
) -> None:
    run = copied(finished, tmp_path / "run")
    file = sorted((run / "checkpoint").glob(which))[0]
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        file.write_bytes({"cut": content[:middle], "flip": flipped, "empty": b""}[damage])
    before = snapshot(run)
    resumed = fedopt_here("run", "--resume", run, "--set", "run.rounds=6", cwd=tmp_path)
    assert resumed.returncode == 1
    told = resumed.stderr.splitlines()[-1]
    assert (str(run / "checkpoint") if which == "checkpoint.json" else file.name) in told
    assert "Traceback" not in resumed.stderr
    assert snapshot(run) == before


def test_an_edited_number_in_the_manifest_is_noticed(finished: Path, tmp_path: Path) -> None:
    run = copied(finished, tmp_path / "run")
    manifest = run / "checkpoint" / "checkpoint.json"
    manifest.write_text(manifest.read_text().replace('"round": 4', '"round": 3'))
    with pytest.raises(BrokenRun, match="was edited: its checksum does not match"):
        fedopt.resume(run)


def test_an_experiment_may_not_change_under_a_run(finished: Path, tmp_path: Path) -> None:
    run = copied(finished, tmp_path / "run")
    with pytest.raises(InvalidExperiment, match=r"^local\.lr was 0\.05 and is now 0\.1; .* may change .*run\.rounds"):
        fedopt.resume(run, ["local.lr=0.1", "run.rounds=6"])
    refused = fedopt_here("run", "--resume", run, "--set", "local.lr=0.1", cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.startswith("fedopt: local.lr was 0.05 and is now 0.1; ")  # before it says anything else
    assert refused.stderr.count("\n") == 1
    (run / "experiment.toml").write_text((run / "experiment.toml").read_text().replace("seed = 0", "seed = 1"))
    with pytest.raises(InvalidExperiment, match=r"run\.seed was 0 and is now 1"):
        fedopt.resume(run)


@pytest.mark.parametrize("damage", ["missing line", "no json", "gone"])
def test_metrics_that_lost_rounds_are_noticed(finished: Path, tmp_path: Path, damage: str) -> None:
    run = copied(finished, tmp_path / "run")
    metrics = run / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    if damage == "gone":
        metrics.unlink()
    else:
        metrics.write_text("".join([lines[0], *lines[2:]] if damage == "missing line" else ["{\n", *lines[1:]]))
    with pytest.raises(BrokenRun, match=r"metrics\.jsonl was edited"):
        fedopt.resume(run)


def test_lines_after_the_checkpoint_are_played_again(finished: Path, tmp_path: Path) -> None:
    run = copied(finished, tmp_path / "run")
    with open(run / "metrics.jsonl", "a") as stream:
        stream.write('{"round": 5, "coh')  # the machine went down in mid-line
    history = fedopt.resume(run, ["run.rounds=6"])
    assert [record.round for record in history.records] == [1, 2, 3, 4, 5, 6]
    assert history.summary.weights_sha256 == fedopt.run(small(rounds=6), tmp_path / "new").summary.weights_sha256


def test_a_finished_run_that_goes_on_has_no_summary_until_it_ends(finished: Path, tmp_path: Path) -> None:
    run = copied(finished, tmp_path / "run")
    seen: list[bool] = []

    class Watcher(Silent):
        def round_done(self, record: RoundRecord) -> None:
            seen.append((run / "summary.json").exists())

    assert fedopt.resume(run, observers=[Watcher()]).summary.rounds == 4
    assert fedopt.resume(run, ["run.rounds=6"], [Watcher()]).summary.rounds == 6
    assert seen == [False, False]
    assert json.loads((run / "summary.json").read_text())["rounds"] == 6


def test_killed_before_its_first_checkpoint_it_starts_again(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "experiment.toml").write_bytes((finished / "experiment.toml").read_bytes())
    expected = json.loads((finished / "summary.json").read_text())["weights_sha256"]
    assert fedopt.resume(run).summary.weights_sha256 == expected


def test_resumed_to_a_round_that_was_not_evaluated_it_is_evaluated(tmp_path: Path) -> None:
    run = tmp_path / "run"

    class Impatient(Silent):
        def round_done(self, record: RoundRecord) -> None:
            if record.round == 2:
                raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="stopped after round 2"):
        fedopt.run(small(), run, [Impatient()])
    summary = fedopt.resume(run, ["run.rounds=2"]).summary
    assert summary.rounds == summary.best.round == 2
    assert summary.final == fedopt.run(small(rounds=2), tmp_path / "whole").summary.final


def test_no_run_is_written_over_another(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidExperiment, match="holds a run already; continue it with --resume"):
        fedopt.run(small(), finished)
    spaced = copied(finished, tmp_path / "two words")
    with pytest.raises(InvalidExperiment, match=r"continue it with --resume '.*two words' "):
        fedopt.run(small(), spaced)
    shutil.rmtree(spaced)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InvalidExperiment, match="is not empty"):
        fedopt.run(small(), tmp_path)
    with pytest.raises(InvalidExperiment, match="is a file"):
        fedopt.run(small(), tmp_path / "notes.txt")
    with pytest.raises(InvalidExperiment, match="there is no run"):
        fedopt.resume(tmp_path)
    with pytest.raises(InvalidExperiment, match="cannot be made: Not a directory"):
        fedopt.run(small(), tmp_path / "notes.txt" / "run")
    assert {file.name for file in tmp_path.iterdir()} == {"notes.txt"}


def test_runs_that_start_at_the_same_moment_get_directories_of_their_own(tmp_path: Path) -> None:
    command_line = ["run", "--set", "run.rounds=1", "--quiet"]
    processes = [start_warm(command_line, cwd=tmp_path) for _ in range(4)]
    assert [process.wait(timeout=120) for process in processes] == [0] * 4
    runs = list((tmp_path / "runs").iterdir())
    assert len(runs) == 4
    assert all((run / "summary.json").is_file() for run in runs)


def test_a_run_in_progress_is_held_by_one_process(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(["run", "--set", "run.rounds=100000", "--out", run, "--quiet"])
    try:
        wait_for_rounds(run, 1, process)
        second = command("run", "--resume", run)
        assert second.returncode == 1
        assert f"{run} is in use by another process" in second.stderr
    finally:
        process.kill()
        process.communicate()


def test_a_run_that_diverges_stops_with_the_last_good_model(tmp_path: Path) -> None:
    run = tmp_path / "run"
    wild = fedopt.Experiment(local={"lr": 1e4, "epochs": 3}, run={"rounds": 50, "cohort": 4})
    with pytest.raises(RunStopped) as caught:
        fedopt.run(wild, run)
    told = str(caught.value)
    assert "round " in told
    assert "client" in told
    assert "a smaller local.lr, or local.clip = 1.0, is the likely remedy" in told

    done = (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").exists() else []
    checkpoint = json.loads((run / "checkpoint" / "checkpoint.json").read_text())
    assert checkpoint["round"] == len(done)
    assert all(tensor.isfinite().all() for tensor in load_file(run / "model.safetensors").values())
    assert all(math.isfinite(json.loads(line)["train_loss"]) for line in done)
    with pytest.raises(RunStopped) as again:
        fedopt.resume(run)
    assert str(again.value) == told
