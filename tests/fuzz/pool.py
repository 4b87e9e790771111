"""Judges many cases in processes that may crash or hang without ending the fuzz."""

from __future__ import annotations

import json
import queue
import select
import subprocess
import sys
import threading
from collections.abc import Iterator

from tests.fuzz.judging import Result
from tests.processes import ROOT

LIMIT = 300.0
"""Seconds after which an index counts as hanging."""


class Worker:
    """One process, started anew when it ends or hangs."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def judge(self, seed: int, index: int, *, processes: bool) -> Result:
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"seed": seed, "index": index, "processes": processes}).encode() + b"\n")
        process.stdin.flush()
        there, _, _ = select.select([process.stdout], [], [], LIMIT)
        line = process.stdout.readline() if there else b""
        if line:
            return Result(**json.loads(line))
        how = f"the process ended with {process.wait()}" if there else f"no answer within {LIMIT:g} s"
        self.close()
        return Result(f"{seed}:{index}", complaints=[how])

    @staticmethod
    def _start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.worker"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def judge_all(seed: int, first: int, count: int, workers: int, *, processes: bool) -> Iterator[Result]:
    """The results of so many indices, as they come."""
    indices: queue.SimpleQueue[int] = queue.SimpleQueue()
    for index in range(first, first + count):
        indices.put(index)
    results: queue.SimpleQueue[Result] = queue.SimpleQueue()

    def serve() -> None:
        worker = Worker()
        try:
            while True:
                results.put(worker.judge(seed, indices.get_nowait(), processes=processes))
        except queue.Empty:
            return
        finally:
            worker.close()

    for _ in range(min(workers, count)):
        threading.Thread(target=serve, daemon=True).start()
    for _ in range(count):
        yield results.get()
