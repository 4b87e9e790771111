"""Copies of the checkout, in which a mutation can be applied and tests be run without touching the original."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.mutations.mutation import Mutation

QUICK = "not slow and not deployment"
"""The tests of `make test-quick`."""

TEST_SECONDS, RUN_SECONDS = 150, 1800
"""How long one test may take before it fails, and one call of pytest before it is ended: a mutant may never return."""

WARM = Path(__file__).with_name("warm.py")

FAILED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """What one call of pytest came to."""

    code: int | None
    """pytest's exit status: 0 passed, 1 failed, 2 does not import, 4 no such test, 5 no tests; None if it hung."""
    failed: tuple[str, ...]
    """Node ids of the tests that failed."""
    output: str


class Copy:
    """The files that git knows of or does not ignore, in a folder of their own."""

    def __init__(self, root: Path, folder: Path) -> None:
        self._root, self.folder = root, folder
        self._warm: subprocess.Popen[str] | None = None
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=root,
            check=True,
            capture_output=True,
            text=True,
        )
        for name in filter(None, listed.stdout.split("\0")):
            if (root / name).is_file():  # not one that was removed since the last commit
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(root / name, folder / name)

    @contextmanager
    def mutated(self, mutation: Mutation) -> Iterator[None]:
        """Within, the copy holds the mutation."""
        path = self.folder / mutation.file
        original, changed = path.read_text(), mutation.applied(self.folder)
        try:
            self._write(path, changed)
            yield
        finally:
            self._write(path, original)
            shutil.rmtree(self.folder / ".hypothesis", ignore_errors=True)  # examples that failed under this mutation

    def test(self, *arguments: str, stop_early: bool = True) -> Outcome:
        """Runs pytest over quick tests in the copy, without those of the mutations themselves."""
        given = ["-q", "-n", "0", "-m", QUICK, "-p", "no:cacheprovider", "--ignore", "tests/mutations"]
        given += ["--timeout", str(TEST_SECONDS), "--hypothesis-seed", "0", *(["-x"] if stop_early else []), *arguments]
        warm = self._warm or self._warm_up()
        assert warm.stdin is not None
        assert warm.stdout is not None
        output = self.folder.parent / "output"
        warm.stdin.write(json.dumps({"arguments": given, "output": str(output), "seconds": RUN_SECONDS}) + "\n")
        warm.stdin.flush()
        answer = warm.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process that runs pytest has ended with status {warm.wait()}")
        shown = output.read_text(errors="replace")
        return Outcome(json.loads(answer), tuple(FAILED.findall(shown)), shown)

    def close(self) -> None:
        """Ends the process that runs pytest."""
        if self._warm is not None:
            self._warm.terminate()
            self._warm.wait()
            self._warm = None

    def _warm_up(self) -> subprocess.Popen[str]:
        data = os.environ.get("FEDOPT_DATA", str(self._root.parent / "shared" / "data"))
        self._warm = subprocess.Popen(
            [sys.executable, "-P", str(WARM)],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.folder), "FEDOPT_DATA": data},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._warm.stdout is not None
        self._warm.stdout.readline()  # it is ready, or has ended
        return self._warm

    @staticmethod
    def _write(path: Path, text: str) -> None:
        path.write_text(text)
        # Python takes compiled code for current by the file's size and second of change; both may be the same.
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink()


def deselecting(tests: Sequence[str]) -> list[str]:
    """pytest's arguments for all tests but these."""
    return [argument for test in tests for argument in ("--deselect", test)]
