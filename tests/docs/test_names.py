"""Files that the documents name are there, and the commands that are not run have options that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, Block, Kind, pages, read_page
from tests.docs.commands import commands_in, parse

DOCUMENTS = sorted([*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"), ROOT / "examples" / "deployment" / "README.md"])

NAMED = re.compile(r"`((?:fedopt|clients|server|simulations|tests|docs|examples)/[\w./@-]*)`")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_files_that_a_document_names_are_there(document: Path) -> None:
    missing = [name for name in NAMED.findall(document.read_text()) if not (ROOT / name).exists()]
    assert missing == []


def test_the_architecture_names_files() -> None:
    assert len(NAMED.findall((ROOT / "docs" / "architecture.md").read_text())) > 30


NOT_RUN = [block for page in pages() for block in read_page(page) if block.kind is Kind.NOT_RUN]


@pytest.mark.parametrize("block", [b for b in NOT_RUN if b.language == "sh"], ids=lambda block: block.place)
def test_a_command_that_is_not_run_has_options_that_exist(block: Block) -> None:
    for words in commands_in(block.text):
        parse(words)
