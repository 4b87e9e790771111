"""The mutation run itself: what it takes for noticed, and that its list fits the code."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.mutations.__main__ import ROOT, main
from tests.mutations.mutation import Mutation, matching, moved, read_mutations
from tests.mutations.runner import run

PRODUCT = "def product(a: int, b: int) -> int:\n    found = a * b\n    unused = 1\n    return found\n"

CHECKS = {
    "zero": "assert product(0, 2) == 0",
    "six": "assert product(2, 3) == 6",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small project under git."""
    root = tmp_path / "project"
    (root / "tests").mkdir(parents=True)
    (root / "product.py").write_text(PRODUCT)
    for name, check in CHECKS.items():
        test = f"from product import product\n\ndef test_{name}() -> None:\n    {check}\n"
        (root / "tests" / f"test_{name}.py").write_text(test)
    (root / "other").mkdir()
    (root / "other" / "test_always_fails.py").write_text("def test_always_fails() -> None:\n    assert False\n")
    (root / "pytest.ini").write_text("[pytest]\ntestpaths = tests\n")
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    return root


@pytest.mark.slow
def test_what_a_mutation_must_come_to(checkout: Path) -> None:
    def mutation(name: str, old: str, new: str, first: str, explained: str = "") -> Mutation:
        return Mutation(
            name=name, file="product.py", old=old, new=new, breaks="it", first=(first,), explained=explained
        )

    mutations = [
        mutation("by a first test", "a * b", "a + b", "tests/test_zero.py"),
        # As long as the original and written within the same second: compiled code must not be taken for current.
        mutation("by another", "a * b", "a * 2", "tests/test_zero.py"),
        mutation("anyway", "unused = 1", "unused = 4", "other/test_always_fails.py"),
        mutation("no such test", "a * b", "a + b", "tests/test_gone.py"),
        mutation("no code", "a * b", "a *", "tests/test_six.py"),
        mutation("survivor", "unused = 1", "unused = 2", "tests/test_zero.py"),
        mutation("known survivor", "unused = 1", "unused = 3", "tests/test_zero.py", "nothing reads it"),
    ]
    reported: list[str] = []
    findings = run(checkout, mutations, jobs=1, hints_only=False, report=lambda found: reported.append(found.line()))
    assert len(reported) == len(mutations)
    assert (checkout / "product.py").read_text() == PRODUCT
    found = {finding.mutation.name: finding for finding in findings}
    assert found["by a first test"].by == "tests/test_zero.py::test_zero"
    assert found["by another"].by == "tests/test_six.py::test_six"
    assert [finding.verdict for finding in findings] == ["noticed"] * 2 + ["unclear"] * 3 + ["survived"] * 2
    assert [finding.is_fine for finding in findings] == [True, True, False, False, False, False, True]
    assert "does not pass without the mutation either" in found["anyway"].by
    assert "does not know" in found["no such test"].by
    assert "status 2" in found["no code"].by


def test_code_that_moved_is_named(checkout: Path) -> None:
    gone = Mutation(name="gone", file="product.py", old="a / b", new="b / a", breaks="it")
    twice = Mutation(name="twice", file="product.py", old="found", new="lost", breaks="it")
    nowhere = Mutation(name="nowhere", file="quotient.py", old="a", new="b", breaks="it")
    first, second, third = moved([gone, twice, nowhere], checkout)
    assert first.startswith("gone: 'a / b' occurs 0 times in product.py and must occur once")
    assert second.startswith("twice: 'found' occurs 2 times")
    assert third.startswith("nowhere: there is no file quotient.py")


def test_every_mutation_of_the_list_can_be_applied() -> None:
    mutations = read_mutations()
    assert moved(mutations, ROOT) == []
    assert len(mutations) >= 66
    assert all(mutation.breaks and mutation.first for mutation in mutations)
    for mutation in mutations:
        compile(mutation.applied(ROOT), mutation.file, "exec")
        assert all((ROOT / test.partition("::")[0]).is_file() for test in mutation.first), mutation.name


@pytest.mark.slow
def test_a_mutation_of_this_checkout_is_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "^rounds/no-steps-admitted$", "--jobs", "1"]) == 0
    shown = capsys.readouterr().out
    assert "noticed in" in shown
    assert "by tests/fedopt/round/test_admission.py::" in shown
    assert "1 of 1 mutations are noticed" in shown


def test_a_pattern_that_fits_nothing_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "no such mutation"]) == 2
    assert "no mutation has 'no such mutation' in its name or file" in capsys.readouterr().err
    assert matching(read_mutations(), "fedopt/round/loop.py")
