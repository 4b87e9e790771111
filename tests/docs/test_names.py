"""Files that the documents name are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT

DOCUMENTS = sorted([*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"), ROOT / "examples" / "deployment" / "README.md"])

NAMED = re.compile(r"`((?:fedopt|clients|server|simulations|tests|docs|examples)/[\w./@-]*)`")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_files_that_a_document_names_are_there(document: Path) -> None:
    missing = [name for name in NAMED.findall(document.read_text()) if not (ROOT / name).exists()]
    assert missing == []


def test_the_architecture_names_files() -> None:
    assert len(NAMED.findall((ROOT / "docs" / "architecture.md").read_text())) > 30
