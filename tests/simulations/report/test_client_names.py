"""Clients that the data name have these names in partition.json, figures, the page and `fedopt partition`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fedopt
from simulations.report.page import page_data
from simulations.results import read_results
from tests.commands import fedopt as command

SIZES = {"Chur": 12, "Aachen": 20, "Berlin [Mitte]": 16}
"""Not in the order in which clients are numbered."""

NAMES = ["Aachen", "Berlin [Mitte]", "Chur"]


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng, samples = np.random.default_rng(0), sum(SIZES.values())
    hospitals = [name for name, size in SIZES.items() for _ in range(size)]
    return pd.DataFrame(
        {"age": rng.normal(size=samples), "crp": rng.normal(size=samples), "sick": np.arange(samples) % 2}
    ).assign(hospital=hospitals)


def trained(frame: pd.DataFrame, out: Path, **keys: object) -> Path:
    data = fedopt.Data.from_pandas(frame, label="sick", client="hospital")
    experiment = fedopt.Experiment(
        data={"validation": 0.25, **keys}, model={"name": "logistic"}, run={"rounds": 1, "participation": 1.0}
    )
    return fedopt.run(experiment, out, data=data).directory


def test_a_run_knows_the_names_of_its_clients_and_figures_show_them(frame: pd.DataFrame, tmp_path: Path) -> None:
    run = trained(frame, tmp_path / "run")
    stored = json.loads((run / "partition.json").read_text())
    assert stored["clients"] == NAMES
    assert sum(stored["sizes"]) == 36
    assert stored["sizes"][0] == max(stored["sizes"]), "Aachen has most"
    (shown,) = page_data(read_results([run]))["partitions"]
    assert shown["clients"] == NAMES
    axes = fedopt.compare([run]).figure("partition-1").axes[-1]
    assert [label.get_text() for label in axes.get_xticklabels()] == NAMES


def test_clients_that_a_partition_makes_have_numbers(frame: pd.DataFrame, tmp_path: Path) -> None:
    run = trained(frame, tmp_path / "run", partition="iid", clients=3)
    assert json.loads((run / "partition.json").read_text())["clients"] is None
    axes = fedopt.compare([run]).figure("partition-1").axes[-1]
    assert not {label.get_text() for label in axes.get_xticklabels()} & set(NAMES)


def test_the_partition_command_names_them_too(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.to_csv(tmp_path / "hospitals.csv", index=False)
    keys = {
        "name": "table",
        "path": "hospitals.csv",
        "label": "sick",
        "client": "hospital",
        "validation": 0.25,
        "clients": 3,
    }
    asked = [part for key, value in keys.items() for part in ("--set", f"data.{key}={value}")]
    done = command("partition", *asked, "--plot", "p.svg", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [line.split("  ")[0] for line in done.stdout.splitlines()]
    assert rows[1:4] == NAMES
    assert json.loads(command("partition", *asked, "--json", cwd=tmp_path).stdout)["clients"] == NAMES
