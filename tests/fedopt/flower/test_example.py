"""examples/flower-app ends with the weights of `fedopt run experiment.toml`."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Context, RecordDict
from safetensors.torch import load_file

import fedopt
from fedopt.experiment.file import read_experiment
from fedopt.flower import InProcessGrid
from fedopt.flower_version import flower_version
from fedopt.runs.history import History
from server.bench import stock_processes
from tests.processes import PATIENCE, free_port

APP = Path(__file__).parents[3] / "examples" / "flower-app"
CONFIG = tomllib.loads((APP / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The modules of the app, in float64."""
    monkeypatch.syspath_prepend(str(APP))
    torch.set_default_dtype(torch.float64)
    names = ("task", "client_app", "server_app")
    yield {name: importlib.import_module(name) for name in names}
    torch.set_default_dtype(torch.float32)
    for name in names:
        del sys.modules[name]


def run_here(folder: Path, *overrides: str) -> History:
    return fedopt.run(read_experiment(APP / "experiment.toml", overrides), folder)


@pytest.mark.parametrize(("kind", "name"), [("Scaffold", "scaffold"), ("FedAvg", "fedavg")])
def test_the_app_and_its_experiment_end_with_the_same_weights(
    kind: str, name: str, app: dict[str, Any], tmp_path: Path
) -> None:
    config = {**CONFIG, "algorithm": kind, "out": str(tmp_path / "model.safetensors")}
    grid = InProcessGrid(app["client_app"].app, 10, config)
    app["server_app"].app(grid=grid, context=Context(1, 1, {}, RecordDict(), config))
    history = run_here(tmp_path / "run", "run.dtype=float64", f"algorithm.name={name}")
    for key, value in load_file(tmp_path / "model.safetensors").items():
        torch.testing.assert_close(value, history.weights[key], rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.skipif(flower_version() < (1, 42), reason="older versions start a simulation in another way")
def test_flwr_run_on_ray_ends_with_the_same_weights(tmp_path: Path) -> None:
    """A stock SuperLink in simulation mode, float32; the two engines differ in the last bits of a product."""
    home, port, control = tmp_path / "home", free_port(), free_port()
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    binaries = Path(sys.executable).parent
    environment = {
        **os.environ,
        "FLWR_HOME": str(home),
        "PATH": f"{binaries}:{os.environ.get('PATH', '')}",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    with open(tmp_path / "superlink.log", "wb") as log:
        superlink = subprocess.Popen(
            [
                *("flower-superlink", "--insecure", "--simulation", "--disable-runtime-dependency-installation"),
                *("--host", "127.0.0.1", "--port", str(port), "--control-api-address", f"127.0.0.1:{control}"),
            ],
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        end = time.monotonic() + PATIENCE
        while "Uvicorn running" not in (tmp_path / "superlink.log").read_text():
            assert time.monotonic() < end, (tmp_path / "superlink.log").read_text()
            time.sleep(0.2)
        done = subprocess.run(
            [
                *("flwr", "run", str(APP), "--stream", "--federation-config", "num-supernodes=10"),
                *("--run-config", f"out='{tmp_path / 'model.safetensors'}'"),
            ],
            env=environment,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
    finally:
        superlink.terminate()
        superlink.wait(30)
    assert (tmp_path / "model.safetensors").exists(), done.stdout + done.stderr
    history = run_here(tmp_path / "run")
    differences = [
        (value - history.weights[key]).abs().max().item()
        for key, value in load_file(tmp_path / "model.safetensors").items()
    ]
    print(f"flwr run on Ray against fedopt run, float32: largest difference {max(differences):.1e}")
    assert max(differences) < 1e-5


@pytest.mark.slow
@pytest.mark.deployment
def test_flwr_run_on_stock_supernodes_ends_with_the_same_weights(tmp_path: Path) -> None:
    """Two stock SuperNodes, which start a process for every message: the controls live in Flower's context."""
    with stock_processes(tmp_path, 2, node_config="num-partitions=2") as environment:
        done = subprocess.run(
            [
                *("flwr", "run", str(APP), "bench", "--stream"),
                *("--run-config", f"rounds=3 out='{tmp_path / 'model.safetensors'}'"),
            ],
            env=environment,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
    assert (tmp_path / "model.safetensors").exists(), done.stdout + done.stderr
    history = run_here(tmp_path / "run", "data.clients=2", "run.participation=1.0", "run.rounds=3")
    for key, value in load_file(tmp_path / "model.safetensors").items():
        torch.testing.assert_close(value, history.weights[key], rtol=0, atol=1e-5)
