"""Run directories in every state are read for what is in them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedopt
from fedopt.errors import InvalidExperiment
from fedopt.runs.past_runs import FAILURE, find_runs, read_run

pytestmark = pytest.mark.xdist_group("a finished run")  # made once, for one worker


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    fedopt.run(fedopt.Experiment(model={"name": "logistic"}, run={"rounds": 4}), run)
    return run


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_a_finished_run_is_read_whole(run: Path) -> None:
    past = read_run(run)
    assert past.finished
    assert [record.round for record in past.records] == [1, 2, 3, 4]
    assert past.partition is not None
    assert len(past.partition.sizes) == 20
    assert (past.failure, past.warnings) == (None, ())


def test_a_run_that_goes_on_is_read_as_far_as_it_is(run: Path) -> None:
    (run / "summary.json").unlink()
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(b"".join(lines[:2]))
    past = read_run(run)
    assert not past.finished
    assert [record.round for record in past.records] == [1, 2]
    (warning,) = past.warnings
    assert warning.endswith("has not ended: it has 2 of 4 rounds")


def test_a_run_that_failed_in_a_study_and_is_resumed_has_not_failed(run: Path) -> None:
    (run / FAILURE).write_text("diverged: round 5 went wrong\n")
    with pytest.raises(InvalidExperiment):
        fedopt.resume(run, ["run.rounds=0"])
    assert read_run(run).failure == "diverged: round 5 went wrong"
    fedopt.resume(run, ["run.rounds=5"])
    past = read_run(run)
    assert (past.failure, past.finished, len(past.records)) == (None, True, 5)


@pytest.mark.parametrize(
    ("place", "put", "message", "left"),
    [
        (1, b'{"round": 2, "coh', "line 2 is not a record; it is left out", [1, 3, 4]),
        (3, b'{"round": 4, "coh', "line 4 is not whole; it is left out", [1, 2, 3]),
        (2, b"\xff\xfe", "line 3 is not a record; it is left out", [1, 2, 4]),
        (0, b"[]", "line 1 is not a record; it is left out", [2, 3, 4]),
    ],
)
def test_a_broken_line_is_told_and_the_rest_is_read(
    run: Path, place: int, put: bytes, message: str, left: list[int]
) -> None:
    lines = (run / "metrics.jsonl").read_bytes().splitlines()
    lines[place] = put
    (run / "metrics.jsonl").write_bytes(b"\n".join(lines) + (b"" if place == 3 else b"\n"))
    past = read_run(run)
    assert [record.round for record in past.records] == left
    assert message in past.warnings[0]


def test_a_round_that_comes_twice_counts_once(run: Path) -> None:
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(b"".join([*lines[:3], lines[1], lines[3]]))
    past = read_run(run)
    assert [record.round for record in past.records] == [1, 2, 3, 4]
    assert "line 4 is of round 2 again" in past.warnings[0]


@pytest.mark.parametrize("name", ["summary.json", "partition.json"])
def test_a_torn_file_is_told_and_the_rest_is_read(run: Path, name: str) -> None:
    (run / name).write_bytes((run / name).read_bytes()[:-9])
    past = read_run(run)
    assert len(past.records) == 4
    assert any(f"{name} cannot be read; it is left out" in warning for warning in past.warnings)


def test_what_a_study_said_of_a_failure_is_read(run: Path) -> None:
    (run / FAILURE).write_text("diverged: round 3 went wrong\n")
    assert read_run(run).failure == "diverged: round 3 went wrong"


@given(content=st.binary(max_size=300))
def test_whatever_the_metrics_hold_they_are_read(finished: Path, content: bytes) -> None:
    file = finished / "metrics.jsonl"
    before = file.read_bytes()
    try:
        file.write_bytes(before + content)
        records = read_run(finished).records
    finally:
        file.write_bytes(before)
    assert [record.round for record in records][:4] == [1, 2, 3, 4] or content[:1] not in (b"", b"\n")


def test_places_without_runs_are_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place, message in (("gone", "there is no directory"), ("file", "is not a directory"), ("", "holds no run")):
        with pytest.raises(InvalidExperiment, match=message):
            find_runs([tmp_path / place])
    (tmp_path / "experiment.toml").write_text("[data]\nalpha = -1\n")
    with pytest.raises(InvalidExperiment, match=r"cannot be read: data.alpha: must be greater than 0"):
        read_run(tmp_path)


COPIES = ("mlartifacts/1/0a/artifacts", "mlruns/1/0a/artifacts", "study/a/wandb/x", "study/wandb/x")
"""Where MLflow and Weights & Biases keep copies of a run's files."""


def test_runs_are_found_below_and_neither_searches_nor_copies_are(finished: Path, tmp_path: Path) -> None:
    for name in ("study/b", "study/a", "study/search/x", ".c.draft", "other/search/y", *COPIES):
        shutil.copytree(finished, tmp_path / name)
    (tmp_path / "study" / "study.toml").write_text("")
    found = [str(path.relative_to(tmp_path)) for path in find_runs([tmp_path, tmp_path / "study"])]
    assert found == ["other/search/y", "study/a", "study/b"]


def test_experiments_of_projects_and_of_installed_packages_are_no_runs(finished: Path, tmp_path: Path) -> None:
    package = tmp_path / "env/lib/python3.11/site-packages/fedopt/templates/project"
    for folder in (tmp_path, package, tmp_path / "conda/share/templates", tmp_path / "usr/dist-packages/fedopt/t"):
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(finished / "experiment.toml", folder)
    (tmp_path / "env" / "pyvenv.cfg").write_text("")
    (tmp_path / "conda" / "conda-meta").mkdir()
    for name in ("runs/a", ".hidden/b", "env/runs/c"):
        shutil.copytree(finished, tmp_path / name)
    assert find_runs([tmp_path]) == [tmp_path / "runs/a"]
    shutil.rmtree(tmp_path / "runs")
    with pytest.raises(InvalidExperiment, match="holds no run, nor does any folder below it"):
        find_runs([tmp_path])


def test_a_run_that_has_just_begun_is_one(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "runs/new").mkdir(parents=True)
    shutil.copy(finished / "experiment.toml", tmp_path / "runs/new")
    assert find_runs([tmp_path]) == [tmp_path / "runs/new"]


def test_reading_a_run_imports_no_model_and_nothing_from_the_folder_that_it_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run's directory may come from somebody else."""
    run, marker = tmp_path / "run", tmp_path / "imported"
    run.mkdir()
    (run / "of_a_stranger.py").write_text(f"open({str(marker)!r}, 'w')\nbuild = None\nclass Algorithm: ...\n")
    (run / "modules.json").write_text(json.dumps({"folders": {"of_a_stranger": str(run)}}))
    (run / "experiment.toml").write_text('[model]\nname = "of_a_stranger:build"\nwidth = 3\n')
    assert read_run(run).experiment.model.name == "of_a_stranger:build"
    (run / "experiment.toml").write_text('[algorithm]\nname = "of_a_stranger:Algorithm"\n')
    with pytest.raises(InvalidExperiment, match="of_a_stranger:Algorithm cannot be imported"):
        read_run(run)
    assert not marker.exists()
