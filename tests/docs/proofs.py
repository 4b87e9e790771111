"""Which tests prove an algorithm: files that are named after it, or else those that run it and are no other one's."""

from __future__ import annotations

import re
from pathlib import Path

from fedopt.algorithms import ALGORITHMS
from fedopt.algorithms.base import Algorithm
from tests.docs.blocks import ROOT

FOLDER = ROOT / "tests" / "fedopt" / "algorithms"

GENERAL = {"contract", "hooks", "steps"}
"""Tests of all algorithms alike."""


def proofs(name: str, kind: type[Algorithm]) -> tuple[list[str], list[str]]:
    """Paths of the tests, and of the plain implementations that they compare with, from the root of the repository.

    ValueError for an algorithm without a test.
    """
    own = FOLDER / f"test_{name}.py"
    tests = [own] if own.exists() else _running(name, kind)
    if not tests:
        raise ValueError(f"no test in {FOLDER.relative_to(ROOT)} runs {name}: add test_{name}.py")
    papers = dict.fromkeys(FOLDER / "papers" / f"{paper}.py" for test in tests for paper in _papers(test))
    return [str(path.relative_to(ROOT)) for path in tests], [str(path.relative_to(ROOT)) for path in papers]


def _running(name: str, kind: type[Algorithm]) -> list[Path]:
    """Files that import the algorithm, or else name it; without those of another one, if there are others."""
    files = [file for file in sorted(FOLDER.glob("test_*.py")) if _subject(file) not in GENERAL]
    texts = {file: file.read_text(encoding="utf-8") for file in files}
    importing = [file for file, text in texts.items() if f"from {kind.__module__} import" in text]
    found = importing or [file for file, text in texts.items() if f'"{name}"' in text]
    return [file for file in found if _subject(file) not in ALGORITHMS] or found


def _papers(test: Path) -> list[str]:
    """The plain implementations that a test imports."""
    names = re.findall(r"from tests\.fedopt\.algorithms\.papers\.(\w+) import", test.read_text(encoding="utf-8"))
    return [name for name in names if name != "setting"]


def _subject(file: Path) -> str:
    return file.stem.removeprefix("test_")
