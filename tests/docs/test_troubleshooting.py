"""The sentences that docs/troubleshooting.md quotes are in the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.docs.blocks import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()

QUOTED = [" ".join(sentence.split()) for sentence in re.findall(r"\*\*`([^`]+)`\*\*", PAGE)]


def sentences() -> Iterator[str]:
    """Every string of the code, with a null character for what is filled in."""
    for package in ("fedopt", "clients", "server", "simulations"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    yield "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


CODE = sorted({sentence for sentence in sentences() if " " in sentence})


def is_in_code(quoted: str) -> bool:
    """Whether a string of the code has the parts between the dots, in their order."""
    pattern = re.compile(".*".join(re.escape(part.strip()) for part in quoted.split("...")), re.DOTALL)
    return any(pattern.search(sentence) for sentence in CODE)


@pytest.mark.parametrize("quoted", QUOTED)
def test_a_quoted_sentence_is_in_the_code(quoted: str) -> None:
    assert len(quoted.replace("...", "").replace(" ", "")) > 10, "it says something"
    assert is_in_code(quoted)


def test_there_are_sentences_and_others_are_not_found() -> None:
    assert len(QUOTED) > 40
    assert not is_in_code("the server is tired; ...")
    assert not is_in_code("alone ... a run that is resumed may change")
