"""Records the weights' hashes of all cases, or compares them with a record.

    python -m tests.fence record hashes.json [--only PATTERN]
    python -m tests.fence compare hashes.json

Hashes hold for one machine: BLAS and vector units differ in the last bits. Record them at the old commit, compare at
the new one. `--checkout DIR` runs the code of another checkout, whose own cases need not exist.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from tests.fence.cases import CASES, Case

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("FEDOPT_DATA", ROOT.parent / "shared" / "data"))
OLD_KEYS = {"run.backend": "run.gradients"}
"""What keys were called in older checkouts."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("record", "compare"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", default="*")
    parser.add_argument("--checkout", type=Path, default=ROOT)
    parser.add_argument("--old-keys", action="store_true", help="use the names that keys had before they were renamed")
    given = parser.parse_args()
    before = json.loads(given.file.read_text()) if given.what == "compare" else {}
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder)
        write_blobs(files / "blobs.npz")
        for case in CASES:
            if fnmatch.fnmatch(case.name, given.only):
                found[case.name] = weights_of(case, given.checkout, files, given.old_keys)
                same = "" if not before else "same" if before.get(case.name) == found[case.name] else "DIFFERS"
                print(f"{case.name:28} {found[case.name][:16]} {same}", flush=True)
    if given.what == "record":
        given.file.write_text(json.dumps(found, indent=1) + "\n")
        return
    differ = [name for name, sha256 in found.items() if before.get(name) != sha256]
    print(f"{len(found) - len(differ)} of {len(found)} are the same" + (f"; not {', '.join(differ)}" if differ else ""))
    sys.exit(bool(differ))


def weights_of(case: Case, checkout: Path, files: Path, old_keys: bool) -> str:
    """The sha256 of the weights the run ends with; a failure ends everything, with the run's own words."""
    run = files / case.name
    overrides = [text for text in case.overrides(str(DATA), str(files)) if not text.endswith("=")]
    if old_keys:
        for new, old in OLD_KEYS.items():
            overrides = [text.replace(f"{new}=", f"{old}=") for text in overrides]
    settings = [f"--set={text}" for text in overrides]
    fedopt = [sys.executable, "-m", "fedopt"]
    if case.engine == "resumed":
        play(case, checkout, [*fedopt, "run", *settings, "--set=run.rounds=1", "--out", str(run)], drop="run.rounds=3")
        play(case, checkout, [*fedopt, "run", "--resume", str(run), "--set=run.rounds=3"])
    elif case.engine == "ranks":
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "fedopt"]
        play(case, checkout, [*torchrun, "run", *settings, "--out", str(run)])
    elif case.engine == "federation":
        play(case, checkout, [*fedopt, "federation", *settings, "--out", str(run)])
    else:
        engine = ["--engine", "ray"] if case.engine == "ray" else []
        play(case, checkout, [*fedopt, "run", *settings, *engine, "--out", str(run)])
    sha256: str = json.loads((run / "summary.json").read_text())["weights_sha256"]
    return sha256


def play(case: Case, checkout: Path, command: list[str], drop: str = "") -> None:
    command = [part for part in command if part != f"--set={drop}"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(checkout), str(ROOT)])}
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{case.name} ended with {done.returncode}: {done.stderr.strip()[-800:]}")


def write_blobs(file: Path) -> None:
    """Three classes of Gaussian points in the plane."""
    rng = np.random.Generator(np.random.PCG64(0))
    y = np.arange(240) % 3
    x = (rng.standard_normal((240, 2)) + 2 * np.stack([np.cos(2 * y), np.sin(2 * y)], axis=1)).astype(np.float32)
    np.savez(file, x_train=x[:180], y_train=y[:180], x_test=x[180:], y_test=y[180:])


if __name__ == "__main__":
    main()
