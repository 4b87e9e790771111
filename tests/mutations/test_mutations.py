"""The mutation run itself: what it takes for noticed, and that its list fits the code."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.mutations.__main__ import ROOT, main
from tests.mutations.mutation import Mutation, matching, moved, read_mutations
from tests.mutations.runner import Finding, run

PRODUCT = "def product(a: int, b: int) -> int:\n    found = a * b\n    unused = 1\n    return found\n"

CHECKS = {
    "test_zero.py": "assert product(0, 2) == 0",
    "test_six.py": "assert product(2, 3) == 6",
    "test_broken.py": "assert product(7, 1) == 8",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small project under git; one of its tests always fails."""
    root = tmp_path / "project"
    (root / "tests").mkdir(parents=True)
    (root / "product.py").write_text(PRODUCT)
    for name, check in CHECKS.items():
        test = name.removesuffix(".py")
        (root / "tests" / name).write_text(f"from product import product\n\ndef {test}() -> None:\n    {check}\n")
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    return root


def found(checkout: Path, old: str, new: str, first: tuple[str, ...], *, hints_only: bool = False) -> Finding:
    mutation = Mutation(name="one", file="product.py", old=old, new=new, breaks="it", first=first)
    reports: list[Finding] = []
    (finding,) = run(checkout, [mutation], jobs=1, hints_only=hints_only, report=reports.append)
    assert [report.mutation for report in reports] == [mutation]
    assert (checkout / "product.py").read_text() == PRODUCT
    return finding


def test_a_first_test_notices(checkout: Path) -> None:
    finding = found(checkout, "a * b", "a + b", ("tests/test_zero.py",))
    assert (finding.verdict, finding.by) == ("noticed", "tests/test_zero.py::test_zero")
    assert finding.is_fine


def test_what_passes_its_first_tests_goes_through_the_others(checkout: Path) -> None:
    (checkout / "tests" / "test_broken.py").unlink()
    # As long as the original and written within the same second: compiled code must not be taken for current.
    finding = found(checkout, "a * b", "a * 2", ("tests/test_zero.py",))
    assert (finding.verdict, finding.by) == ("noticed", "tests/test_six.py::test_six")
    survivor = found(checkout, "unused = 1", "unused = 2", ("tests/test_zero.py",))
    assert survivor.verdict == "survived"
    assert not survivor.is_fine
    assert found(checkout, "unused = 1", "unused = 2", ("tests/test_zero.py",), hints_only=True).verdict == (
        "passes hints"
    )


def test_a_test_that_fails_anyway_notices_nothing(checkout: Path) -> None:
    finding = found(checkout, "unused = 1", "unused = 2", ("tests/test_broken.py",))
    assert finding.verdict == "unclear"
    assert "does not pass without the mutation either" in finding.by


def test_a_first_test_that_is_gone_and_a_mutant_that_cannot_be_imported_are_unclear(checkout: Path) -> None:
    assert "does not know" in found(checkout, "a * b", "a + b", ("tests/test_gone.py",)).by
    assert "status 2" in found(checkout, "a * b", "a *", ("tests/test_six.py",)).by


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


def test_a_mutation_of_this_checkout_is_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "^rounds/no-steps-admitted$", "--jobs", "1"]) == 0
    shown = capsys.readouterr().out
    assert "noticed in" in shown
    assert "by tests/fedopt/test_admission.py::" in shown
    assert "1 of 1 mutations are noticed" in shown


def test_a_pattern_that_fits_nothing_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "no such mutation"]) == 2
    assert "no mutation has 'no such mutation' in its name or file" in capsys.readouterr().err
    assert matching(read_mutations(), "fedopt/rounds.py")
