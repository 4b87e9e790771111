"""`make docs` builds a site whose links lead somewhere and that loads nothing from other hosts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.docs.blocks import ROOT

LOADED = re.compile(r'<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)="(?P<place>[^"]+)"')
LINK = re.compile(r"\]\((?P<place>[^)#\s]+)(?:#[^)]*)?\)")


def test_the_site_builds_without_warnings_and_without_other_hosts(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= len(list((ROOT / "docs").glob("*.md")))
    for page in pages:
        loaded = [found["place"] for found in LOADED.finditer(page.read_text(encoding="utf-8"))]
        assert loaded
        assert not [place for place in loaded if place.startswith(("http:", "https:", "//"))], page


def test_links_of_the_readme_lead_to_files() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    places = [found["place"] for found in LINK.finditer(text)]
    missing = [place for place in places if not place.startswith("https://") and not (ROOT / place).exists()]
    assert missing == []
