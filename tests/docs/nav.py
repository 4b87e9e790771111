"""A hook of mkdocs: the navigation lists the pages that are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    folder = Path(config["docs_dir"])
    for section in config["nav"]:
        for title, pages in section.items():
            section[title] = [page for page in pages if all((folder / name).is_file() for name in page.values())]
    config["nav"] = [section for section in config["nav"] if all(section.values())]
    return config
