"""One point of `fedopt bench scale`, in a process of its own: prints seconds and MiB as JSON."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import fedopt
from simulations.benchmarks.scale import MODELS


def main(requested: dict[str, Any]) -> None:
    run = {"rounds": requested["rounds"] + 1, "cohort": requested["cohort"], "eval_every": requested["rounds"] + 1}
    experiment = fedopt.Experiment(
        data={"name": "synthetic", "clients": requested["clients"]},
        model={"name": "mlp", "hidden": MODELS[requested["parameters"]]},
        algorithm={"name": requested["algorithm"]},
        local={"steps": 2, "batch_size": 10, "lr": 0.001},
        run={**run, "checkpoint_every": run["rounds"]},
        metrics={"drift": "off", "drift_every": 0, "clients_every": 0},
    )
    peak = Peak()
    with tempfile.TemporaryDirectory() as folder:
        history = fedopt.run(experiment, Path(folder) / "run", [peak])
    seconds = statistics.median(record.seconds for record in history.records[1:])
    print(json.dumps({"seconds": round(seconds, 5), "mib": round(peak.mib, 1)}))


class Peak:
    """An observer that samples the memory of the run's processes twice a second and after each round."""

    mib = 0.0

    def started(self, directory: Path, rounds_done: int, rounds: int) -> None:
        self._over = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def round_done(self, record: Any) -> None:
        self._sample()

    def ended(self) -> None:
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            self._sample()

    def _sample(self) -> None:
        self.mib = max(self.mib, proportional_mib())


def proportional_mib() -> float:
    """MiB of this process and its children, each shared page divided by the processes that share it; 0 if unknown."""
    total = 0.0
    for process in [Path("/proc/self"), *map(Path, _children())]:
        try:
            lines = (process / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue  # the process has ended, or this system has no smaps_rollup
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    return total


def _children() -> list[str]:
    try:
        return [f"/proc/{pid}" for pid in Path("/proc/self/task").glob("*/children").__next__().read_text().split()]
    except (OSError, StopIteration):
        return []


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
