"""What must not change a bit: lanes, workers, ranks, a federation of processes, an interruption.

A variation runs a case's experiment once more in another manner, and compares the weights' fingerprint and every
number of the records that does not measure time or traffic.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

import fedopt
from fedopt.errors import InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.runs.history import History, RoundRecord
from tests.commands import environment
from tests.fuzz.cases import Case
from tests.processes import ROOT, free_port

NO_PROMISE = ("vmap",)
"""Backends whose bits may depend on what runs beside a client (on a CPU)."""

PATIENCE = 120.0
"""Seconds within which a run in processes of its own must end."""

Found = tuple[str, list[dict[str, Any]]]
"""A run's fingerprint, and its records."""


def variations(case: Case, *, processes: bool) -> list[str]:
    """Which variations a case is put to; those that start processes of their own are rare, and only where requested."""
    rng = np.random.default_rng((case.seed, case.index, case.attempt, 1))
    chosen = ["lanes"]
    if case.sections["run"]["rounds"] > 1 and rng.random() < 0.6:
        chosen.append("resumed")
    if rng.random() < 0.35:
        chosen.append("workers")
    rare = rng.random()
    if processes and rare < 0.04:
        chosen.append("ranks" if rare < 0.02 else "deployed")
    return chosen


def vary(name: str, case: Case, history: History, folder: Path) -> list[str]:
    """Runs the case another way; a sentence for each difference from `history`."""
    try:
        found = VARIATIONS[name](case, history, folder / name)
    except InvalidExperiment as error:
        return [f"{name}: refused, though the run itself was not: {error}"]
    expected = _found(history)
    complaints = []
    if found[0] != expected[0]:
        complaints.append(f"{name}: other weights ({found[0][:12]} for {expected[0][:12]})")
    for one, two in zip(expected[1], found[1], strict=True):
        last_but_one = one["round"] == history.experiment.run.rounds - 1
        for key in sorted(one.keys() - _ignored(name, last_but_one=last_but_one)):
            if one[key] != two.get(key):
                complaints.append(f"{name}: round {one['round']}: {key} is {two.get(key)!r}, not {one[key]!r}")
    return complaints[:4]


def _ignored(name: str, *, last_but_one: bool) -> set[str]:
    """Keys of a record that a variation may change."""
    if name == "deployed":
        return {"seconds", "bytes_up", "bytes_down", "algorithm"}  # of the controls a server sees its own alone
    # Full gradients are measured in a run's last round, and the interrupted run ended with this one.
    return {"seconds", "gradients", "algorithm"} if name == "resumed" and last_but_one else {"seconds"}


def _lanes(case: Case, history: History, out: Path) -> Found:
    own = case.sections["run"]["lanes"]
    rng = np.random.default_rng((case.seed, case.index, 2))
    lanes = [lanes for lanes in (1, 2, 3, 5, "auto") if lanes != own]
    return _again(history.experiment, out, lanes=lanes[int(rng.integers(len(lanes)))], workers=1)


def _workers(case: Case, history: History, out: Path) -> Found:
    return _again(history.experiment, out, workers=2 if case.sections["run"]["workers"] == 1 else 1)


def _again(experiment: Experiment, out: Path, **run: Any) -> Found:
    return _found(fedopt.run(_with(experiment, **run), out))


def _with(experiment: Experiment, **run: Any) -> Experiment:
    sections = experiment.model_dump(exclude_unset=True)
    return Experiment(**{**sections, "run": {**sections["run"], **run}})


def _resumed(case: Case, history: History, out: Path) -> Found:
    """Fewer rounds first, and then the rest of them, with other lanes."""
    rounds = history.experiment.run.rounds
    fedopt.run(_with(history.experiment, rounds=rounds - 1), out)
    return _found(fedopt.resume(out, [f"run.rounds={rounds}", "run.lanes=2", "run.workers=1"]))


def _deployed(case: Case, history: History, out: Path) -> Found:
    file = history.directory / "experiment.toml"
    clients = str(history.experiment.data.clients)
    _command(["-m", "fedopt", "federation", str(file), "--clients", clients, "--out", str(out), "--quiet"])
    return _read(out)


def _ranks(case: Case, history: History, out: Path) -> Found:
    file = history.directory / "experiment.toml"
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", f"--master-port={free_port()}"]
    _command([*launcher, "-m", "fedopt", "run", str(file), "--out", str(out), "--quiet"])
    return _read(out)


VARIATIONS: dict[str, Callable[[Case, History, Path], Found]] = {
    "lanes": _lanes,
    "workers": _workers,
    "resumed": _resumed,
    "ranks": _ranks,
    "deployed": _deployed,
}


def _command(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment(), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr[-600:]}")


def _found(history: History) -> Found:
    return history.summary.weights_sha256, [json.loads(record.model_dump_json()) for record in history.records]


def _read(out: Path) -> Found:
    summary = json.loads((out / "summary.json").read_text())
    records = _records((out / "metrics.jsonl").read_text().splitlines())
    return str(summary["weights_sha256"]), records


def _records(lines: Iterable[str]) -> list[dict[str, Any]]:
    return [json.loads(RoundRecord.model_validate_json(line).model_dump_json()) for line in lines]
