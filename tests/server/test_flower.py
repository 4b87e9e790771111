"""The same app with Flower's own parts: `flwr run .`, stock SuperLink, stock SuperNodes."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import fedopt
from fedopt.errors import InvalidExperiment
from fedopt.experiment.file import override
from fedopt.flower_version import flower_version
from server.app import OPTIONS, overrides_in
from server.bench import STOCK_NODES_SPEAK_HTTP, stock_processes
from server.keys import make_keys
from tests.processes import Processes

ROOT = Path(__file__).parents[2]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]


def flat(table: dict[str, object], prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in table.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def test_every_run_config_key_is_a_key_of_an_experiment() -> None:
    for key, value in flat(CONFIG).items():
        assert value == ""
        if key not in OPTIONS:
            section, _, name = key.partition(".")
            with pytest.raises(InvalidExperiment) as caught:
                fedopt.Experiment(**{section: {name: object()}})
            assert "unknown key" not in str(caught.value)


def test_run_config_overrides_the_experiment() -> None:
    config = {**flat(CONFIG), "run.rounds": 3, "algorithm.name": "scaffold", "set": "model.hidden=[5] data.alpha=2.5"}
    experiment = fedopt.Experiment(**override({}, overrides_in(config)))  # type: ignore[arg-type]
    assert experiment.run.rounds == 3
    assert experiment.algorithm.name == "scaffold"
    assert experiment.data.partition.model_dump()["alpha"] == 2.5
    assert experiment.model.model_dump()["hidden"] == (5,)


@pytest.mark.deployment
def test_flwr_run_on_stock_superlink_and_supernodes(tmp_path: Path) -> None:
    """Two stock SuperNodes end with the weights of the simulation; each message starts a process with torch."""
    checkout = tmp_path / "checkout"
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for file in files:
        if not file.startswith("tests/") and (ROOT / file).is_file():
            (checkout / file).parent.mkdir(parents=True, exist_ok=True)
            (checkout / file).write_bytes((ROOT / file).read_bytes())
    (tmp_path / "stock").mkdir()
    settings = (
        "data.clients=2 data.alpha=1.0 algorithm.name='scaffold' run.rounds=2 run.participation=1.0 "
        "run.dtype='float64' metrics.clients_every=0"
    )
    with stock_processes(tmp_path / "stock", 2) as environment:
        done = subprocess.run(
            [
                *(str(Path(sys.executable).with_name("flwr")), "run", str(checkout), "bench"),
                *("--run-config", f"{settings} out='{tmp_path / 'run'}'", "--stream"),
            ],
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    assert (tmp_path / "run" / "summary.json").exists(), done.stdout + done.stderr
    there = json.loads((tmp_path / "run" / "summary.json").read_text())
    experiment = fedopt.Experiment(
        data={"clients": 2, "alpha": 1.0},
        algorithm={"name": "scaffold"},
        run={"rounds": 2, "participation": 1.0, "dtype": "float64"},
    )
    assert there["weights_sha256"] == fedopt.run(experiment, tmp_path / "here").summary.weights_sha256


@pytest.mark.deployment
@pytest.mark.skipif(
    flower_version() >= STOCK_NODES_SPEAK_HTTP,
    reason="stock SuperNodes speak HTTP from Flower 1.40, fedopt server gRPC: make test-flower VERSION=1.39.0",
)
@pytest.mark.parametrize("secure", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_stock_supernode_joins_a_fedopt_server(secure: bool, processes: Processes) -> None:
    """With the key that `fedopt keys` made for it, over TLS; or in plaintext."""
    settings = ("--set", "data.name=synthetic", "--set", "data.partition=iid", "--set", "run.participation=1.0")
    keys = processes.folder / "keys"
    make_keys(keys, 2, [], 1)
    protection = ("--keys", keys) if secure else ()
    server = processes.server(
        *("--clients", "2", "--out", processes.folder / "run", *settings, "--set", "run.rounds=2"), *protection
    )
    server.wait_for("listening on")
    resident = processes.client(1, *(("--ca", keys / "ca.crt", "--key", keys / "client-1.key") if secure else ()))
    with stock_processes(processes.folder, 1, processes.address, keys if secure else None):
        assert server.wait() == 0, server.output
    assert resident.wait() == 0
    lines = [json.loads(line) for line in (processes.folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["left_out"] for line in lines] == [{}, {}]


def test_the_bundle_names_the_app() -> None:
    import io

    from server.superlink import app_bundle

    with zipfile.ZipFile(io.BytesIO(app_bundle())) as bundle:
        app = tomllib.loads(bundle.read("pyproject.toml").decode())["tool"]["flwr"]["app"]
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    assert app["components"] == ours["components"]
