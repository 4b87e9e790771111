"""The benchmarks compare like with like."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest
import torch

from simulations.benchmarks import store
from simulations.benchmarks.engine import Bench, Cell
from tests.commands import fedopt_here


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_both_sides_of_the_benchmark_come_to_the_same_model(optimizer: str) -> None:
    with closing(Bench("logistic", 64, optimizer)) as bench:
        assert torch.allclose(bench.by_engine(), bench.by_plain_loop(), rtol=1e-4, atol=1e-6)


def test_controls_on_the_disk_and_in_memory_are_measured_on_the_same_work() -> None:
    found = store.measure(clients=4, cohort=2, samples=10, rounds=2)
    assert found.parameters == 784 * 200 + 200 + 200 * 200 + 200 + 200 * 10 + 10
    assert 0 < found.ratio_min <= found.ratio <= found.ratio_max
    assert min(found.in_memory, found.on_disk) > 0


def test_what_was_measured_stays_when_the_rest_is_called_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def first_only(model: str, batch: int, optimizer: str, **options: object) -> Cell:
        if done:
            raise KeyboardInterrupt
        done.append(optimizer)
        return Cell(model, batch, optimizer, "stacked", 2, 5, 100.0, 50.0, 2.0, 1.5, 2.5, {})

    monkeypatch.setattr("simulations.commands.bench.measure", first_only)
    called_off = fedopt_here("bench", "engine", "--model", "logistic", "--out", "here", cwd=tmp_path)
    assert called_off.returncode != 0
    assert "sgd, batch 10 | 2.0 (1.5-2.5)" in (tmp_path / "here" / "engine.md").read_text()
    (line,) = (tmp_path / "here" / "engine.jsonl").read_text().splitlines()
    assert [cell["batch"] for cell in json.loads(line)["cells"]] == [10]
