"""A run knows its data by their bytes, wherever they lie, and goes on with no others."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

import fedopt
from fedopt.data.loading import load_dataset
from fedopt.data.partition import partition
from fedopt.errors import BrokenRun, DataUnavailable
from fedopt.experiment.experiment import Experiment
from fedopt.runs.past_runs import read_run
from server.deployment import open_run


def arrays(seed: int, samples: int = 120) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, samples)
    x = rng.standard_normal((samples, 5)).astype(np.float32) + y[:, None].astype(np.float32)
    return {"x_train": x[:90], "y_train": y[:90], "x_test": x[90:], "y_test": y[90:]}


def experiment(file: Path, seed: int = 0, rounds: int = 2) -> Experiment:
    return Experiment(
        data={"name": "npz", "path": file, "clients": 4, "partition": "iid"},
        model={"name": "logistic"},
        local={"epochs": 1},
        run={"rounds": rounds, "participation": 1.0, "seed": seed, "checkpoint_every": 1},
    )


def files_of(run: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}


def test_it_is_the_hash_of_the_arrays_and_of_who_holds_them(tmp_path: Path) -> None:
    given = arrays(0)
    np.savez(tmp_path / "a.npz", **given)  # type: ignore[arg-type]
    asked = experiment(tmp_path / "a.npz")
    fedopt.run(asked, tmp_path / "run")
    digest = hashlib.sha256()
    for name in ("x_train", "y_train", "x_test", "y_test"):
        kind = "<f4" if name.startswith("x") else "<i8"
        digest.update(f"{kind}{given[name].shape}".encode() + given[name].astype(kind).tobytes())
    parts = partition(load_dataset(asked.data, 0), asked.data, 0)
    divided = hashlib.sha256(b"".join(f"{len(part)} ".encode() + part.astype("<i8").tobytes() for part in parts))
    kept = json.loads((tmp_path / "run" / "fingerprint.json").read_text())
    assert kept == {"data": digest.hexdigest(), "partition": divided.hexdigest()}


def test_a_run_does_not_go_on_with_other_data(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays(0))  # type: ignore[arg-type]
    fedopt.run(experiment(tmp_path / "a.npz"), tmp_path / "run")
    before = files_of(tmp_path / "run")
    (tmp_path / "a.npz").rename(tmp_path / "moved.npz")
    np.savez(tmp_path / "a.npz", **arrays(1))  # type: ignore[arg-type]
    with pytest.raises(DataUnavailable, match=r"was begun on data with the fingerprint \w{12}, and npz now has \w{12}"):
        fedopt.resume(tmp_path / "run", ["run.rounds=4"])
    assert files_of(tmp_path / "run") == before
    longer = fedopt.resume(tmp_path / "run", ["run.rounds=4", f"data.path={tmp_path / 'moved.npz'}"])
    assert longer.summary.rounds == 4


def test_a_run_does_not_go_on_with_another_partition(tmp_path: Path) -> None:
    """As when another version of fedopt divides the same data otherwise."""
    np.savez(tmp_path / "a.npz", **arrays(0))  # type: ignore[arg-type]
    fedopt.run(experiment(tmp_path / "a.npz"), tmp_path / "run")
    file = tmp_path / "run" / "fingerprint.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"partition": "0" * 64}))
    with pytest.raises(DataUnavailable, match="was begun on a partition with the fingerprint 000000000000"):
        fedopt.resume(tmp_path / "run", ["run.rounds=4"])
    file.write_text('{"data": "torn')
    with pytest.raises(BrokenRun, match=r"fingerprint.json is torn or was edited"):
        fedopt.resume(tmp_path / "run", ["run.rounds=4"])


def test_a_run_from_before_fingerprints_is_read_and_goes_on_without_one(tmp_path: Path) -> None:
    fedopt.run(Experiment(run={"rounds": 1}), tmp_path / "run")
    (tmp_path / "run" / "fingerprint.json").unlink()
    past = read_run(tmp_path / "run")
    assert (past.fingerprint, past.warnings) == (None, ())
    assert fedopt.resume(tmp_path / "run", ["run.rounds=2"]).summary.rounds == 2
    assert not (tmp_path / "run" / "fingerprint.json").exists()  # nothing says what its first round was played on


def test_a_server_knows_the_data_that_it_has(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays(0))  # type: ignore[arg-type]
    with open_run(experiment(tmp_path / "a.npz"), tmp_path / "run", None, []):
        pass
    kept = json.loads((tmp_path / "run" / "fingerprint.json").read_text())
    fedopt.run(experiment(tmp_path / "a.npz"), tmp_path / "simulated")
    assert kept == json.loads((tmp_path / "simulated" / "fingerprint.json").read_text()) | {"partition": None}
    with open_run(None, None, tmp_path / "run", []):
        pass
    np.savez(tmp_path / "a.npz", **arrays(1))  # type: ignore[arg-type]
    with pytest.raises(DataUnavailable, match="was begun on data with"), open_run(None, None, tmp_path / "run", []):
        pass
