"""torchrun with two gloo ranks: the run of one process, to the bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.processes import free_port

SETTINGS = [
    "run.rounds=3",
    "run.cohort=7",
    "run.keep_models=2",
    "local.epochs=1",
    "local.momentum=0.9",
    "local.crop=1",
    "local.flip=true",
    "metrics.drift_every=1",
    "metrics.clients_every=1",
    "algorithm.name=scaffold",
]


def play(out: Path, *arguments: str, ranks: int) -> str:
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), f"--master-port={free_port()}"]
    command = [sys.executable, *(launcher if ranks > 1 else []), "-m", "fedopt", "run", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return str(json.loads((out / "summary.json").read_text())["weights_sha256"])


def test_two_ranks_come_to_the_bits_of_one_process_and_resume(tmp_path: Path) -> None:
    rounds, *others = SETTINGS
    settings = [part for setting in others for part in ("--set", setting)]
    alone, together = tmp_path / "alone", tmp_path / "together"
    expected = play(alone, *settings, "--set", "run.rounds=4", "--out", str(alone), ranks=1)
    play(together, *settings, "--set", rounds, "--out", str(together), ranks=2)
    found = play(together, "--resume", str(together), "--set", "run.rounds=4", ranks=2)
    assert found == expected
    lines = [(run / "metrics.jsonl").read_text().splitlines() for run in (alone, together)]
    for one, two in zip(*lines, strict=True):
        ours, theirs = json.loads(one), json.loads(two)
        assert ours.pop("seconds") != theirs.pop("seconds")
        assert ours == theirs  # every measure, to the last digit
    models = [{file.name: file.read_bytes() for file in (run / "models").iterdir()} for run in (alone, together)]
    assert models[1].pop("round-000003.safetensors"), "of the end before it was resumed"
    assert models[0] == models[1]
