"""`fedopt list` explains every name and cites its paper, without loading torch."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from fedopt.commands.cli import COMMANDS
from fedopt.commands.names import KINDS, app
from fedopt.registry import Entry, Registry, UnknownName

WIDE = {"COLUMNS": "220", "NO_COLOR": "1"}


def lines(*arguments: str) -> list[str]:
    done = CliRunner().invoke(app, arguments, env=WIDE)
    assert done.exit_code == 0, done.output
    return done.output.splitlines()


@pytest.mark.parametrize("kind", KINDS)
def test_every_name_has_half_a_line(kind: str) -> None:
    for name in KINDS[kind].registry:
        about = KINDS[kind].registry.entry(name).about
        assert 10 < len(about) <= 80, f"{name}: {about}"


@pytest.mark.parametrize("kind", KINDS)
def test_one_kind_prints_its_names_and_papers_and_no_other(kind: str) -> None:
    title, header, *rows = lines(kind)
    registry = KINDS[kind].registry
    assert title.strip() == f"{kind} ({KINDS[kind].key})"
    assert header.split() == ["name", "about", "paper"]
    assert [row.split()[0] for row in rows][: len(registry)] == list(registry)
    for name, row in zip(registry, rows, strict=False):
        assert registry.entry(name).about in row
        assert row.rstrip().endswith(registry.entry(name).paper or registry.entry(name).about)


def test_without_an_argument_all_kinds_are_printed() -> None:
    tables = [line for kind in KINDS for line in ["", *lines(kind)]]
    assert lines() == lines("names") == tables[1:]


@pytest.mark.parametrize("kind", ["algorithms", "optimizers"])
def test_a_paper_is_the_one_that_the_file_cites(kind: str) -> None:
    registry = KINDS[kind].registry
    for name in registry:
        document = importlib.import_module(registry[name].partition(":")[0]).__doc__ or ""
        cited = re.findall(r"arXiv:\d{4}\.\d{5}", document)
        assert not cited or cited[0] in registry.entry(name).paper, name


def test_listing_names_loads_neither_torch_nor_flower() -> None:
    place = COMMANDS["list"].place.partition(":")[0]
    code = f"import sys, {place}; {place}._print_names(); assert not {{'torch', 'flwr', 'pydantic'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_an_entry_may_be_a_bare_place() -> None:
    registry = Registry("thing", {"bare": "json:dumps", "full": Entry("json:loads", "reads JSON", "RFC 8259")})
    assert dict(registry) == {"bare": "json:dumps", "full": "json:loads"}
    assert registry.entry("bare") == Entry("json:dumps", about="", paper="")
    assert registry.entry("full").paper == "RFC 8259"
    assert registry.load("full") is importlib.import_module("json").loads
    with pytest.raises(UnknownName, match="did you mean bare"):
        registry.check("bear")
