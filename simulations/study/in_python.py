"""A study that Python describes: `fedopt.Study` as the study of a file, run with the same checks and files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from fedopt.commands.output import Output
from fedopt.data.own import Data
from fedopt.errors import InvalidExperiment
from fedopt.experiment.changes import INSTEAD_OF
from fedopt.experiment.experiment import Experiment
from fedopt.experiment.file import as_sections
from fedopt.explain import explain
from fedopt.family import Family
from fedopt.imports import place_of
from fedopt.models.own import OwnModel
from fedopt.runs import study as facade
from fedopt.runs.notebook import in_notebook
from fedopt.runs.own_data import with_data
from fedopt.runs.own_model import Model, with_model
from fedopt.runs.runner import Interrupted
from fedopt.section import Section
from simulations.report.inline import InlineReport
from simulations.results import Results
from simulations.study.checks import VALIDATION, checked
from simulations.study.conduct import Watcher, conduct
from simulations.study.display import Display, NotebookDisplay, Silent
from simulations.study.file import LABEL, SEED, Study
from simulations.study.tables import write_results
from simulations.study.workers import cores


class StudyReport(InlineReport):
    """Implements `fedopt.runs.study.StudyResult`."""

    def __init__(self, results: Results, directory: Path, failures: Mapping[str, str]) -> None:
        super().__init__(results)
        self.directory, self.failures = directory, failures

    @property
    def page(self) -> Path:
        return self.directory / "report.html"


def names(given: facade.Study) -> list[str]:
    return [run.name for run in checked(study_of(given, given.base)).runs]


def run(
    given: facade.Study,
    out: Path | None,
    *,
    jobs: int | None,
    retry: bool,
    progress: bool | None,
    data: Data | None,
    model: Model | None,
    observers: facade.ObserversOfRun | None,
) -> StudyReport:
    if observers is not None and not callable(observers):
        raise InvalidExperiment(
            "observers=: a study takes a function of a run's name that returns the run's observers, for example "
            "lambda name: [fedopt.tracking.MLflow()]"
        )
    base = with_model(with_data(given.base, data), model)  # holds the module until all runs have ended
    study = study_of(given, base)
    plan = checked(study)
    if model is not None and not any(isinstance(run.experiment.model, OwnModel) for run in plan.first):
        raise InvalidExperiment("model=: no run of the study has it, because an axis sets model.name; leave out one")
    name = given.title or "study"
    out = out or Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-study"
    watcher = _watcher(progress)
    for note in plan.notes:
        watcher.note(note)
    here = observers is not None or any(_is_of_this_process(run.experiment) for run in plan.first)
    outcome = conduct(study, name, out, 0 if here else jobs or cores(), retry, watcher, observers=observers)
    if outcome.interrupted:
        raise Interrupted(f"the study is stopped; Study.run({str(out)!r}) continues it")
    return StudyReport(write_results(out), out, outcome.failures)


def study_of(given: facade.Study, base: Experiment) -> Study:
    """The study as a file would describe it. InvalidExperiment says what is wrong."""
    for axis, values in given.axes.items():
        if isinstance(values, str | Mapping) or not isinstance(values, Sequence):
            raise InvalidExperiment(f"Study: axes: {axis} takes a list of values, as in [{values!r}], not {values!r}")
    axes = {_key(axis, values): [_value(axis, value) for value in values] for axis, values in given.axes.items()}
    seeds = given.seeds
    keys: dict[str, Any] = {
        "title": given.title,
        "about": given.about,
        "seeds": [base.run.seed + number for number in range(seeds)] if isinstance(seeds, int) else list(seeds),
        "grid": axes,
        "adjust": [dict(adjustment) for adjustment in given.adjust],
    }
    if given.compare is not None:
        keys["compare"] = given.compare
    if given.search is not None:
        keys["search"] = dict(given.search)
    try:
        study = Study(**keys)
    except ValidationError as error:
        raise InvalidExperiment("\n".join(f"Study: {line}" for line in explain(error).splitlines())) from error
    return study.model_copy(update={"base": _base(base, study)})


def _base(experiment: Experiment, study: Study) -> dict[str, dict[str, Any]]:
    """The keys that the experiment was given, without those that some axis or the seeds set in every run."""
    everywhere = {SEED}
    for axis, values in study.grid.items():
        keys = [value.keys() - {LABEL} if isinstance(value, Mapping) else {axis} for value in values]
        everywhere |= set.intersection(*map(set, keys))
    if study.search is not None:
        everywhere |= {*study.search.grid, VALIDATION} | ({"run.rounds"} if study.search.rounds is not None else set())
    everywhere |= {INSTEAD_OF[key] for key in everywhere & INSTEAD_OF.keys()}
    sections = {
        section: {key: value for key, value in keys.items() if f"{section}.{key}" not in everywhere}
        for section, keys in given_sections(experiment).items()
    }
    return {section: keys for section, keys in sections.items() if keys}


def given_sections(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """The keys that were given, with plain values; those left to their defaults are not among them, because another
    member of a family may have other defaults."""
    found: dict[str, dict[str, Any]] = {}
    for name, plain in as_sections(experiment).items():
        section: Section = getattr(experiment, name)
        keys = section.given().keys() | ({"name"} if isinstance(section, Family) else set())
        found[name] = {key: value for key, value in plain.items() if key in keys}
    return found


def _key(axis: str, values: Sequence[Any]) -> str:
    """An axis as the study's file names it: "algorithm" with names, classes or objects is algorithm.name."""
    of_section = "." not in axis and any(isinstance(value, Family | type | str) for value in values)
    return f"{axis}.name" if of_section else axis


def _value(axis: str, value: Any) -> Any:
    """A value of an axis as the study's file would have it: a class by its name, an object as a table of its keys."""
    section, _, key = axis.partition(".")
    named = f"{section}.{key or 'name'}"
    if isinstance(value, type) and issubclass(value, Family):
        registered = value.registry.names_of(value)
        return registered[0] if registered else {LABEL: value.__name__, named: place_of(value)}
    if not isinstance(value, Family):
        return dict(value) if isinstance(value, Mapping) else value
    plain = value.model_dump(mode="json", exclude_none=True)
    own = {name: plain[name] for name in plain if name in value.given() and name != "name"}
    label = " ".join([value.name.rpartition(":")[2], *(f"{name}={entry}" for name, entry in own.items())])
    return {LABEL: label, named: value.name, **{f"{section}.{k}": v for k, v in own.items()}}


def _watcher(progress: bool | None) -> Watcher:
    if progress is False or (progress is None and not in_notebook()):
        return Silent()
    return NotebookDisplay() if in_notebook() else Display(Output(Console(stderr=True)))


def _is_of_this_process(experiment: Experiment) -> bool:
    """Whether no other process could run it: it has arrays, a model or classes of this one."""
    return any(
        part.name == "memory" or isinstance(part, OwnModel) or type(part).__module__ == "__main__"
        for part in _members(experiment)
    )


def _members(section: Section) -> Iterator[Family]:
    if isinstance(section, Family):
        yield section
    for value in section.__dict__.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, Section):
                yield from _members(part)
