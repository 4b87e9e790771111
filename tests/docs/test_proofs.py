"""Every algorithm names the test that proves it, and its docstring holds what the page shows."""

from __future__ import annotations

import re

import pytest

from fedopt.algorithms import ALGORITHMS
from fedopt.algorithms.fedavg import FedAvg
from fedopt.experiment.algorithms import AlgorithmFacts, algorithm_facts
from fedopt.registry import Entry
from tests.docs.blocks import ROOT
from tests.docs.markdown import marked_up, wrapped
from tests.docs.proofs import proofs

FACTS = {facts.name: facts for facts in algorithm_facts()}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_tests_of_an_algorithm_are_there_and_run_it(name: str) -> None:
    tests, papers = proofs(name, FACTS[name].kind)
    assert tests
    for path in (*tests, *papers):
        assert (ROOT / path).is_file()
    place = ALGORITHMS[name].partition(":")[0]
    texts = [(ROOT / path).read_text(encoding="utf-8") for path in tests]
    assert any(place in text or f'"{name}"' in text for text in texts)


def test_the_test_is_the_algorithms_own_or_that_of_its_family() -> None:
    of = {name: proofs(name, facts.kind) for name, facts in FACTS.items()}
    here = "tests/fedopt/algorithms"
    assert of["scaffold"] == ([f"{here}/test_scaffold.py"], [])
    assert of["ditto"] == ([f"{here}/test_ditto.py"], [f"{here}/papers/ditto.py"])
    assert of["local"] == ([f"{here}/test_baselines.py"], [f"{here}/papers/baselines.py"])
    assert of["mimelite"] == ([f"{here}/test_mime.py"], [f"{here}/papers/mime.py"])


def test_an_algorithm_without_a_test_is_named() -> None:
    class Untested(FedAvg):
        pass

    Untested.__module__ = "fedopt.algorithms.untested"
    with pytest.raises(ValueError, match=r"no test in tests/fedopt/algorithms runs untested: add test_untested.py"):
        proofs("untested", Untested)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_docstring_has_a_citation_and_a_formula(name: str) -> None:
    facts = FACTS[name]
    assert len(facts.citation) > 40
    assert "<-" in facts.formula
    number = re.search(r"arXiv:\d{4}\.\d{5}", facts.entry.paper)
    assert number is None or number[0] in facts.citation


def test_what_is_read_off_a_class() -> None:
    scaffold, mime, central = FACTS["scaffold"], FACTS["mime"], FACTS["central"]
    assert [(one.down, one.up) for one in scaffold.exchanges] == [(("x", "c"), ("dx", "dc"))]
    assert (scaffold.at_server, scaffold.at_clients) == (("c",), ("c_i",))
    assert [(one.down, one.up) for one in mime.exchanges] == [
        (("x",), ("gradient",)),
        (("x", "m", "gradient"), ("dx",)),
    ]
    assert scaffold.formula.startswith("each round, each chosen client i:  y_i <- x,  then steps of any optimizer")
    assert scaffold.formula.endswith("c <- c + sum p_i (c_i+ - c_i)")
    assert scaffold.citation.startswith("SCAFFOLD: Karimireddy, Kale,")
    assert scaffold.remarks[0].startswith("All controls start at zero.")
    assert [remark for remark in central.remarks if remark.startswith("Traps: ")]


def test_a_docstring_without_a_formula_has_the_rule() -> None:
    class Bare(FedAvg):
        pass

    Bare.__module__ = "fedopt.errors"  # a module whose docstring has no block
    assert AlgorithmFacts("bare", Entry("", rule="x <- x"), Bare, ()).formula == "x <- x"


def test_markup_leaves_code_and_bold_alone() -> None:
    assert marked_up("**Traps.** p_i of `c_i` and c_i") == "**Traps.** p<sub>i</sub> of `c_i` and c<sub>i</sub>"
    assert marked_up("the sum of all, sum p_i d_i") == "the sum of all, Σ p<sub>i</sub> d<sub>i</sub>"


def test_a_line_of_a_paragraph_begins_with_no_sign_of_a_list() -> None:
    for sign in ("-", "+", "1.", "#"):
        text = f"{'word ' * 19}wor {sign} c, which ends here"
        lines = wrapped(text)
        assert lines == [f"{'word ' * 19}wor {sign}", "c, which ends here"]
