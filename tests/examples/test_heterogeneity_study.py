"""The study of examples/heterogeneity-study: its file, the same in Python, and its stored page."""

from __future__ import annotations

import re
from pathlib import Path

import fedopt
from simulations.study.checks import checked
from simulations.study.file import read_study
from simulations.study.in_python import study_of

FOLDER = Path(__file__).parents[2] / "examples" / "heterogeneity-study"


def test_the_study_in_python_has_the_runs_of_the_file() -> None:
    _, of_file = read_study(FOLDER / "study.toml", [], None)
    runs = checked(of_file).runs
    (block,) = re.findall(r"```python\n(.*?)```", (FOLDER / "README.md").read_text(), re.S)
    names: dict[str, object] = {}
    exec(block[: block.index("result = ")], names)
    study = names["study"]
    assert isinstance(study, fedopt.Study)
    assert [(run.name, run.experiment) for run in checked(study_of(study, study.base)).runs] == [
        (run.name, run.experiment) for run in runs
    ]
    assert len(runs) == 24


def test_the_stored_page_is_of_this_study_and_small() -> None:
    page = FOLDER / "report.html"
    assert page.stat().st_size < 300_000
    title = read_study(FOLDER / "study.toml", [], None)[1].title
    assert f"<title>{title}" in page.read_text(encoding="utf-8")
