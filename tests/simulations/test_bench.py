"""The benchmarks compare like with like."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest
import torch

from simulations.benchmarks import store
from simulations.benchmarks.engine import Bench, Cell, Setting
from simulations.benchmarks.profile import profile
from tests.commands import fedopt_here


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_both_sides_of_the_benchmark_come_to_the_same_model(optimizer: str) -> None:
    """In float64: Adam divides by gradients that may be close to zero, and float32 then differs from itself."""
    with closing(Bench("logistic", 64, optimizer, dtype=torch.float64)) as bench:
        assert torch.allclose(bench.by_engine(), bench.by_plain_loop(), rtol=1e-9, atol=1e-12)


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

    monkeypatch.setattr("simulations.benchmarks.engine.measure", first_only)
    called_off = fedopt_here("bench", "engine", "--model", "logistic", "--out", "here", cwd=tmp_path)
    assert called_off.returncode != 0
    assert "sgd, batch 10 | 2.0 (1.5-2.5)" in (tmp_path / "here" / "engine.md").read_text()
    (line,) = (tmp_path / "here" / "engine.jsonl").read_text().splitlines()
    assert [cell["batch"] for cell in json.loads(line)["cells"]] == [10]


def cell_of(model: str, optimizer: str, engine: str = "stacked", lanes: int = 2) -> Cell:
    return Cell(model, 10, optimizer, engine, 2, lanes, 4000.0, 1000.0, 4.0, 3.5, 4.5, {})


def test_the_parts_of_a_step_are_the_products_of_its_layers() -> None:
    found = profile(cell_of("mlp", "sgd"))
    shapes = [(784, 200), (200, 200), (200, 10)]
    once = [10 * depth * width for depth, width in shapes]
    assert sum(part.multiplications for part in found.parts) == 2 * sum(once) + sum(once[1:])
    forward = next(part for part in found.parts if part.what == "784 x 200 on 10: forward")
    assert forward.bytes == 4 * (10 * 784 + 784 * 200 + 10 * 200)
    assert forward.gflops == pytest.approx(2e-9 * 10 * 784 * 200 / forward.seconds)
    assert all(part.seconds > 0 for part in found.parts)
    assert found.step == 2 / 4000
    assert found.bound == pytest.approx(2 * (1 / 1000) / sum(part.seconds for part in found.parts))


def test_two_passes_and_the_vectors_of_an_optimizer_are_counted() -> None:
    once, twice = profile(cell_of("logistic", "sgd")), profile(cell_of("logistic", "sam"))
    assert sum(p.multiplications for p in twice.parts) == 2 * sum(p.multiplications for p in once.parts)
    adam = profile(cell_of("logistic", "adam")).parts[-1]
    assert (adam.what, adam.bytes) == ("adam: vectors", 7 * 4 * 7850)


@pytest.mark.parametrize("engine", ["stacked", "each"])
def test_convolutions_are_counted_on_either_road(engine: str) -> None:
    found = profile(cell_of("cnn", "sgd", engine, lanes=1))
    first, second = 10 * 24 * 24 * 6 * 25, 10 * 8 * 8 * 16 * 6 * 25
    dense = 10 * (256 * 120 + 120 * 84 + 84 * 10)
    assert sum(part.multiplications for part in found.parts) == 2 * first + 3 * (second + dense)


def test_the_engine_does_the_same_work_in_any_setting() -> None:
    setting = Setting(cohort=3, products="bf16")
    with closing(Bench("logistic", 64, "sgd", setting=setting)) as bench:
        assert len(bench.cohort) == 3
        found, plain = bench.by_engine(), bench.by_plain_loop()
        assert torch.allclose(found, plain, rtol=0.02, atol=1e-3)
        assert not torch.allclose(found, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_the_profile_is_shown_and_kept(tmp_path: Path) -> None:
    one = ("bench", "engine", "--model", "logistic", "--batch", "64", "--repeats", "1", "--profile", "--out", "here")
    shown = fedopt_here(*one, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "784 x 10 on 64: forward" in shown.stdout
    assert "with the parts alone" in shown.stdout
    (line,) = (tmp_path / "here" / "engine.jsonl").read_text().splitlines()
    assert json.loads(line)["profiles"][0]["parts"][0]["what"] == "gather the samples"


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--products", "fp8", "run.products: unknown value 'fp8'"),
        ("--device", "tpu", "run.device: unknown value 'tpu'"),
        pytest.param(
            "--device",
            "cuda",
            "run.device: torch finds no cuda on this machine",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is one"),
        ),
    ],
)
def test_a_setting_that_cannot_be_is_refused_before_anything_is_measured(
    option: str, value: str, sentence: str, tmp_path: Path
) -> None:
    refused = fedopt_here("bench", "engine", option, value, "--out", "here", cwd=tmp_path)
    assert refused.returncode == 2
    assert sentence in refused.stderr
    assert not (tmp_path / "here").exists()
