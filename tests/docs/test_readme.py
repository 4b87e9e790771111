"""The README is short, and what it and the pages name is there."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from pathlib import Path

import pytest

from fedopt.commands.cli import COMMANDS
from fedopt.experiment.experiment import Experiment
from tests.commands import fedopt
from tests.docs.blocks import ROOT, pages

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples" / "mnist.toml"


def test_it_fits_on_three_screens_with_one_picture() -> None:
    assert len(README.splitlines()) <= 150
    (picture,) = re.findall(r"!\[.*?\]\((.*?)\)", README)
    assert (ROOT / picture).stat().st_size < 250_000


def test_the_tests_that_it_names_are_there() -> None:
    named = re.findall(r"`(tests/[^`]+)`", README)
    assert len(named) >= 4
    assert [place for place in named if not (ROOT / place).exists()] == []


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_the_targets_of_make_and_the_commands_that_a_page_names_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", text)) <= targets
    # A span in bold type is a message and no command.
    assert set(re.findall(r"(?<!\*)`fedopt ([a-z]+)", text)) <= COMMANDS.keys()


def test_the_example_is_valid_and_runs(shared_data: Path, tmp_path: Path) -> None:
    experiment = Experiment(**tomllib.loads(EXAMPLE.read_text()))
    assert experiment.notes() == []
    assert experiment.cohort_size == 10
    short = ("--set", f"data.path={shared_data}", "--set", "run.rounds=1", "--set", "local.steps=5")
    done = fedopt("run", EXAMPLE, *short, "--out", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rounds"] == 1


def test_the_license_is_the_one_that_pyproject_names() -> None:
    """The text's checksum is that of https://www.apache.org/licenses/LICENSE-2.0.txt."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (project["license"], project["license-files"]) == ("Apache-2.0", ["LICENSE"])
    text = (ROOT / "LICENSE").read_bytes()
    assert hashlib.sha256(text).hexdigest() == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
