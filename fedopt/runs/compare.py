"""`fedopt.compare`: what `fedopt report` shows, in Python and in notebooks.

The tables and figures are named by a string and imported when used: this package does not depend on them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from fedopt.errors import InvalidExperiment
from fedopt.imports import load_attribute
from fedopt.runs.history import History
from fedopt.runs.past_runs import PastRun, find_runs, past_run_of, read_run
from fedopt.runs.table import Table

AnyRun = History | str | os.PathLike[str]
"""A history, or a directory: a run's, a study's, or one that holds some."""

Given = Mapping[str, Sequence[PastRun]] | Sequence[Path] | Sequence[PastRun]
"""Runs by label, directories, or runs."""

FIGURES = ("accuracy", "drift-ratio")
"""The figures that a comparison shows in a notebook."""


class Comparison(Protocol):
    """Runs side by side. A notebook shows its table and its figures.

    Runs that differ only in their seed are one row, and one curve with a band of one standard deviation.
    """

    @property
    def table(self) -> Table:
        """A row for each setting: means over its seeds and, as `..._std`, the sample standard deviation."""
        ...

    @property
    def runs(self) -> Table:
        """A row for each run, with those columns of a study's results.csv that some run has."""
        ...

    @property
    def pairs(self) -> Table:
        """Differences in final accuracy from the first setting, in points, on the same seeds.

        `of` says which: clients_accuracy, of the models that clients use, if an algorithm is personal, else
        test_accuracy.
        """
        ...

    @property
    def warnings(self) -> Sequence[str]:
        """What to know before comparing, for example that the runs are of different data."""
        ...

    @property
    def figures(self) -> Sequence[str]:
        """The names of the figures for which the runs have data."""
        ...

    def to_markdown(self) -> str:
        """What is printed, in Markdown: mean ± standard deviation over seeds, the best in bold."""
        ...

    def to_latex(self) -> str:
        r"""The same as a LaTeX tabular; it needs \usepackage{booktabs}."""
        ...

    def figure(self, name: str = "accuracy") -> Any:
        """A matplotlib Figure, to change before it is saved."""
        ...

    def save(self, file: str | os.PathLike[str], figure: str = "accuracy") -> Path:
        """Writes one figure, as the ending of `file` says: .pdf, .svg or .png."""
        ...

    def _repr_html_(self) -> str: ...


def compare(
    runs: AnyRun | Sequence[AnyRun] | Mapping[str, AnyRun | Sequence[AnyRun]], figures: Sequence[str] = FIGURES
) -> Comparison:
    """Compares histories or run directories, as `fedopt report` does.

    In a list, runs are labeled by the keys in which they differ. A mapping gives labels of your own, each for one run
    or for a list of runs that differ only in their seed. `figures` names those that a notebook shows.
    InvalidExperiment if there is no run, if a label's runs have different settings, or if two labels have the same run.
    """
    make = cast(Callable[[Given, Sequence[str]], Comparison], load_attribute("simulations.report.inline:comparison"))
    return make(_given(runs), figures)


def _given(runs: AnyRun | Sequence[AnyRun] | Mapping[str, AnyRun | Sequence[AnyRun]]) -> Given:
    if isinstance(runs, Mapping):
        labeled = {label: [run for one in _listed(own) for run in _past_runs(one)] for label, own in runs.items()}
        empty = [label for label, own in labeled.items() if not own]
        if empty or not labeled:
            raise InvalidExperiment(f"compare: {empty[0]!r} has no run" if empty else "compare: give at least one run")
        return labeled
    given = _listed(runs)
    if not given:
        raise InvalidExperiment("compare: give at least one run")
    places = [Path(run) for run in given if not isinstance(run, History)]
    if len(places) == len(given):
        return places
    found = {run.path.resolve(): run for one in given for run in _past_runs(one)}
    return list(found.values())


def _listed(runs: AnyRun | Sequence[AnyRun]) -> list[AnyRun]:
    return [runs] if isinstance(runs, History | str | os.PathLike) else list(runs)


def _past_runs(run: AnyRun) -> list[PastRun]:
    if isinstance(run, History):
        return [past_run_of(run)]
    return [read_run(path) for path in find_runs([Path(run)])]
