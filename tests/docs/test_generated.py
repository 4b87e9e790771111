"""The reference pages are what the code says now."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

import fedopt
from fedopt.algorithms import ALGORITHMS
from fedopt.composite import flat_keys
from fedopt.experiment.experiment import Experiment
from fedopt.experiment.file import as_sections
from fedopt.experiment.keys import key_groups
from fedopt.optimizers import OPTIMIZERS
from tests.commands import fedopt_here
from tests.docs.blocks import ROOT
from tests.docs.generate import PAGES
from tests.docs.markdown import formula


@pytest.mark.parametrize("name", PAGES)
def test_what_is_committed_is_what_the_command_makes(name: str) -> None:
    committed = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert committed == PAGES[name](), "run python -m tests.docs.generate"


def test_every_key_has_a_meaning() -> None:
    silent = [key.name for group in key_groups() for key in group.keys if not key.meaning]
    assert silent == [], "write a docstring below the field"


def test_every_algorithm_and_optimizer_has_a_paper_and_an_update_rule() -> None:
    for registry in (ALGORITHMS, OPTIMIZERS):
        for name in registry:
            entry = registry.entry(name)
            assert entry.about, name
            assert entry.paper or entry.about.startswith("baseline: "), name
            assert entry.rule, name


def test_the_keys_of_sections_are_all_there_with_the_defaults_of_an_experiment() -> None:
    defaults = as_sections(Experiment())
    # What has no default of its own but follows from other keys: an experiment shows what followed.
    derived = {"data.partition", "local.epochs", "run.participation"}
    for group in key_groups():
        if group.members:
            continue
        found = {key.name.partition(".")[2]: key for key in group.keys}
        for name, key in found.items():
            if key.default and key.name not in derived:
                assert tomllib.loads(f"x = {key.default}")["x"] == defaults[group.section][name], key.name
            elif key.name not in derived:
                assert name not in defaults[group.section], key.name


@pytest.mark.parametrize("section", ["data", "local"])
def test_no_key_is_missing(section: str) -> None:
    shown = {key.name.partition(".")[2] for group in key_groups() if group.section == section for key in group.keys}
    assert shown == flat_keys(type(getattr(Experiment(), section)))


def test_the_terminal_lists_every_key(tmp_path: Path) -> None:
    done = fedopt_here("list", "keys", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {key.name for group in key_groups() for key in group.keys} <= set(done.stdout.split())


def test_formulas_are_typeset() -> None:
    assert formula("sum w_i |d_i|^2 / |d|^2") == ("Σ w<sub>i</sub> \\|d<sub>i</sub>\\|² / \\|d\\|²")
    assert formula("1/2 sum_k |q_ik - q_k|") == "1/2 Σ<sub>k</sub> \\|q<sub>ik</sub> - q<sub>k</sub>\\|"
    assert formula("metrics.drift_every, left_out") == "metrics.drift_every, left_out"


def test_every_file_of_a_run_and_every_field_is_explained(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "run-directory.md").read_text(encoding="utf-8")
    history = fedopt.run(fedopt.Experiment(run={"rounds": 1}), tmp_path / "run")
    for file in history.directory.iterdir():
        assert f"| `{file.name}{'/' * file.is_dir()}` |" in page, file.name
    meaning = re.compile(r"^\| `([a-z_0-9]+)` \| \S", re.MULTILINE)
    for name in ("metrics.jsonl", "summary.json", "partition.json", "fingerprint.json"):
        _, part = page.split(f"\n## {name}\n")
        written = json.loads((history.directory / name).read_text())
        assert written.keys() <= set(meaning.findall(part.partition("\n## ")[0])), name
