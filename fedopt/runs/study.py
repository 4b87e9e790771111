"""`fedopt.Study`: what `fedopt study` runs, in Python and in notebooks.

Studies are named by a string and imported when used: this package does not depend on them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

from fedopt.data.own import Data
from fedopt.experiment.experiment import Experiment
from fedopt.imports import load_attribute
from fedopt.runs.compare import Comparison
from fedopt.runs.observers import AnyObserver
from fedopt.runs.own_model import Model

ObserversOfRun = Callable[[str], Sequence[AnyObserver]]
"""A function of a run's name, one of `Study.names`, that returns the run's observers."""


class StudyResult(Comparison, Protocol):
    """A study's runs side by side. Its directory holds report.html, results.csv and summary.md as well."""

    @property
    def directory(self) -> Path: ...

    @property
    def page(self) -> Path:
        """The study's report, one HTML file that needs no network."""
        ...

    @property
    def failures(self) -> Mapping[str, str]:
        """Runs that did not finish, by their directory's name, each with the reason."""
        ...


@dataclass(frozen=True)
class Study:
    """Every combination of some settings, over several seeds.

    >>> import fedopt
    >>> study = fedopt.Study(
    ...     fedopt.Experiment(run={"rounds": 20}),
    ...     axes={"algorithm.name": ["fedavg", "scaffold"], "data.alpha": [0.1, 1.0]},
    ... )
    >>> study.names[:4]
    ['fedavg-alpha0.1-seed0', 'fedavg-alpha0.1-seed1', 'fedavg-alpha0.1-seed2', 'fedavg-alpha1-seed0']
    >>> result = study.run("runs/alpha")          # doctest: +SKIP
    >>> result.table.to_pandas()                  # doctest: +SKIP

    All runs of a seed have the same clients, initial weights, cohorts and minibatches.
    """

    base: Experiment
    """What all runs share: the keys that it was given. Keys of axes replace its own."""
    axes: Mapping[str, Sequence[Any]]
    """Each section.key with its values. A value may be a member's class or object, or a mapping that sets several keys
    and has a label: {"label": "momentum", "local.momentum": 0.9, "local.lr": 0.03}."""
    seeds: int | Sequence[int] = 3
    """A number of seeds, from the base experiment's on, or a list of seeds."""
    compare: str | None = None
    """The axis that tables compare by; by default algorithm.name or, without it, the first."""
    title: str = ""
    about: str = ""
    """The question, for the report."""
    adjust: Sequence[Mapping[str, Any]] = ()
    """Other values for the combinations that match, as in a study's file: {"when": {...}, "set": {...}}."""
    search: Mapping[str, Any] | None = field(default=None)
    """A hyperparameter search for each combination, as in a study's file: {"grid": {"local.lr": [...]}}."""

    @property
    def names(self) -> Sequence[str]:
        """The names of the runs. InvalidExperiment if the study contradicts itself; nothing is run."""
        return cast(Callable[[Study], Sequence[str]], load_attribute("simulations.study.in_python:names"))(self)

    def run(
        self,
        out: str | os.PathLike[str] | None = None,
        *,
        jobs: int | None = None,
        retry: bool = False,
        progress: bool | None = None,
        data: Data | None = None,
        model: Model | None = None,
        observers: ObserversOfRun | None = None,
    ) -> StudyResult:
        """Runs what is left of the study, and writes its tables and its page.

        `out` is the study's directory, new or to continue: finished runs are skipped, interrupted ones resumed; runs
        that failed are repeated with `retry`. By default it is a new one in runs/. `jobs` is the number of worker
        processes, by default one per core; runs with `data`, `model` or `observers`, or with classes of a notebook, are
        made in this process instead, one after the other. `progress`, `data` and `model` are those of `fedopt.run`. All
        runs start at the weights of a module that is passed.

        `observers` is called with the name of each run that is begun or resumed, those of a search included, and
        returns the run's observers: `lambda name: [fedopt.tracking.MLflow()]`. Each run needs objects of its own.
        """
        make = cast(
            Callable[..., StudyResult],
            load_attribute("simulations.study.in_python:run"),
        )
        return make(
            self,
            None if out is None else Path(out),
            jobs=jobs,
            retry=retry,
            progress=progress,
            data=data,
            model=model,
            observers=observers,
        )
