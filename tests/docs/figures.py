"""`python -m tests.docs.figures [NAME...]` draws the figures of docs/learn.md: it runs the commands that stand before
each, in an empty folder, and photographs the SVG file of that name in a headless Chromium.

An image `![...](images/learn/NAME.png)` shows NAME.svg of the last shell block before it. With names, only these."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from tests.docs.blocks import ROOT, read_page
from tests.simulations.chromium import OFFLINE, QUIETLY

PAGE = ROOT / "docs" / "learn.md"
FOLDER = ROOT / "docs" / "images" / "learn"
IMAGE = re.compile(r"!\[[^\]]*\]\(images/learn/([\w-]+)\.png\)")
WIDEST = 900
"""Pixels on the page of the widest figures; others have the size in which they were drawn."""
SCALE = 1.4
"""Pixels of the image for each of the page."""
SHADES = 256
"""Colors of an image, so that it stays small."""


def figures() -> Iterator[tuple[str, str]]:
    """Each figure's name with the commands that make it."""
    shells = [block for block in read_page(PAGE) if block.language == "sh"]
    for number, line in enumerate(PAGE.read_text(encoding="utf-8").splitlines(), 1):
        found = IMAGE.search(line)
        if found is not None:
            yield found[1], [block for block in shells if block.line < number][-1].text


def photograph(svg: Path, png: Path) -> None:
    """The SVG file as an image, on white."""
    text = svg.read_text(encoding="utf-8")
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    assert box is not None, svg
    width = min(WIDEST, round(float(box[1]) * 4 / 3))  # of points
    height = round(width * float(box[2]) / float(box[1]))
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        style = f"html,body{{margin:0;background:#fff}}img{{display:block;width:{width}px}}"
        page.write_text(f'<!doctype html><style>{style}</style><img src="{svg.as_uri()}">', encoding="utf-8")
        subprocess.run(
            [
                *("chromium", *QUIETLY, *OFFLINE, "--hide-scrollbars"),
                *(f"--user-data-dir={folder}/profile", f"--window-size={width},{height}"),
                *(f"--force-device-scale-factor={SCALE}", f"--screenshot={folder}/shot.png", page.as_uri()),
            ],
            check=True,
            capture_output=True,
        )
        with Image.open(Path(folder) / "shot.png") as shot:
            shot.convert("RGB").quantize(SHADES, dither=Image.Dither.NONE).save(png, optimize=True)


def main(names: list[str]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, commands in figures():
        if names and name not in names:
            continue
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["sh", "-ec", commands], cwd=folder, check=True, capture_output=True)
            (svg,) = Path(folder).rglob(f"{name}.svg")
            photograph(svg, FOLDER / f"{name}.png")
        print(f"{name}.png: {(FOLDER / f'{name}.png').stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
