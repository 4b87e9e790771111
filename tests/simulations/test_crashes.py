"""A run that goes down before any one of its writes, or between two of them, ends with the same weights, and with the
same models of its rounds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import fedopt


class PowerCut(BaseException):
    """Nothing catches this."""


class Countdown:
    """Lets so many changes of the file system happen, and goes down before the next."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left: int | None = None
        self.seen = 0
        replace, unlink = os.replace, Path.unlink

        def counted_replace(source: Path, target: Path) -> None:
            self.tick()
            replace(source, target)

        def counted_unlink(path: Path, missing_ok: bool = False) -> None:
            self.tick()
            unlink(path, missing_ok=missing_ok)

        monkeypatch.setattr(os, "replace", counted_replace)
        monkeypatch.setattr(Path, "unlink", counted_unlink)

    def tick(self) -> None:
        self.seen += 1
        if self.left is not None:
            if self.left == 0:
                raise PowerCut
            self.left -= 1


@pytest.mark.parametrize(
    ("algorithm", "every"),
    [
        pytest.param("fedavg", 1, marks=pytest.mark.slow),
        pytest.param("scaffold", 1, marks=pytest.mark.slow),
        ("scaffold", 3),
    ],
)
def test_down_before_a_write_it_ends_with_the_same_weights(
    algorithm: str, every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = fedopt.Experiment(
        data={"clients": 6, "alpha": 1.0},
        model={"name": "logistic"},
        algorithm={"name": algorithm},
        local={"steps": 2},
        run={"rounds": 4, "cohort": 2, "checkpoint_every": 2, "keep_models": 1},
    )
    disk = Countdown(monkeypatch)
    expected = fedopt.run(experiment, tmp_path / "whole").summary.weights_sha256
    models = kept(tmp_path / "whole")
    assert list(models) == [f"round-{round_:06d}.safetensors" for round_ in (1, 2, 3, 4)]
    writes = disk.seen
    assert writes > (30 if algorithm == "scaffold" else 20)

    for done in range(0, writes, every):
        run = tmp_path / f"down-after-{done}"
        disk.left = done
        with pytest.raises(PowerCut):
            fedopt.run(experiment, run)
        disk.left = None
        # Before the directory appears its name stays free; from then on the run can be resumed.
        history = fedopt.resume(run) if run.exists() else fedopt.run(experiment, run)
        assert history.summary.weights_sha256 == expected, done
        assert [record.round for record in history.records] == [1, 2, 3, 4]
        assert kept(run) == models, done
        drafts = [file for file in run.rglob("*") if "draft" in file.name]
        assert drafts == []


def kept(run: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((run / "models").iterdir())}
