"""`fedopt list` explains every name and cites its paper, without loading torch."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from fedopt.algorithms import ALGORITHMS
from fedopt.commands.cli import COMMANDS
from fedopt.commands.names import KINDS, app
from fedopt.registry import Entry, Registry, UnknownName

TITLES = [f"{kind} ({KINDS[kind].key})" for kind in KINDS]
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


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "algorithms"])
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
    printed = lines()
    assert printed == lines("names")
    assert [line.strip() for line in printed if "(" in line and line.strip() in TITLES] == TITLES
    for kind in set(KINDS) - {"algorithms"}:
        table = lines(kind)
        start = printed.index(table[0])
        assert printed[start : start + len(table)] == table
    for name in KINDS["algorithms"].registry:
        (row,) = (line for line in printed if line.startswith(f"{name} ") and ALGORITHMS.entry(name).about in line)
        assert row.rstrip().endswith(ALGORITHMS.entry(name).paper or ALGORITHMS.entry(name).about)


def test_algorithms_are_printed_with_their_rule_keys_and_vectors() -> None:
    blocks = "\n".join(line.rstrip() for line in lines("algorithms")).split("\n\n")
    assert [block.split()[0] for block in blocks[:-1]] == list(ALGORITHMS)
    of = dict(zip(ALGORITHMS, blocks, strict=False))
    for name, block in of.items():
        entry = ALGORITHMS.entry(name)
        assert f"{name}  {entry.about}" in block
        assert entry.paper in block
        assert entry.rule in block
    control = of["scaffold"]
    assert 'variant = "mean-gradient"' in control
    assert "down x, c; up dx, dc\n" in control
    assert "the server keeps c, each client keeps c_i" in control
    assert "between rounds" not in of["fedavg"]
    assert "down x; up dx\n" in f"{of['fedavg']}\n"
    assert "lam = 1.0" in of["ditto"]
    assert "each client keeps v" in of["ditto"]
    assert 'local.state = "keep"' in of["diloco"]
    assert "each client keeps optimizer.exp_avg, optimizer.exp_avg_sq" in of["diloco"]
    assert "down x; up gradient; then down x, gradient; up dx\n" in f"{of['fedlin']}\n"
    assert "up d and the number a\n" in f"{of['fednova']}\n"


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
