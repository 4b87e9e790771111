"""What a user asks to be drawn of a run, as parts whose work is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch

from fedopt.algorithms.base import shares
from fedopt.errors import InvalidExperiment
from simulations.analysis.landscape.barrier_figures import BarriersPart
from simulations.analysis.landscape.line_figures import Ends, LinesPart
from simulations.analysis.landscape.plane_figures import PlanePart
from simulations.analysis.landscape.planes import Frame, Place, around, principal, through, window
from simulations.analysis.landscape.view import View
from simulations.analysis.landscape.work import Part, Work
from simulations.analysis.result import Value
from simulations.analysis.runs.cache import identity
from simulations.analysis.runs.objective import Objective
from simulations.analysis.runs.of_run import AnalyzedRun
from simulations.analysis.runs.points import FINAL, Point, Points

RANDOM = "random"
TRAINING, TEST = "training", "test"
FEWEST_KEPT = 3


@dataclass(frozen=True)
class Asked:
    lines: Sequence[tuple[str, str]]
    planes: Sequence[tuple[str, ...]]
    """Three models each, or `RANDOM` alone."""
    trajectory: bool
    barriers: int
    """Between so many clients; 0 is none."""
    clients: int
    """So many clients' own losses on every plane."""
    points: int
    span: float
    samples: int
    seed: int
    is_exact: bool
    """Planes in float64 too."""

    @property
    def settings(self) -> dict[str, Value]:
        return {"samples": self.samples, "points": self.points, "seed": self.seed}


class AskedOf:
    """What is asked, of this run."""

    def __init__(self, asked: Asked, run: AnalyzedRun) -> None:
        self._asked, self._run, self._points = asked, run, Points(run)
        self._of = str(run.history.directory)
        self._known: dict[str, Point] = {}

    @cached_property
    def objectives(self) -> dict[str, Objective]:
        """By the names that parts use."""
        asked, run = self._asked, self._run
        return {
            TRAINING: run.objective(asked.samples, asked.seed),
            TEST: run.on_tests(asked.samples, asked.seed),
            **{
                _client(number): run.objective(asked.samples, asked.seed, number)
                for number in range(asked.clients if self._draws_planes else 0)
            },
        }

    def key(self, works: Sequence[Work]) -> dict[str, object]:
        """What the losses of a part follow from, for the cache."""
        names = sorted({name for work in works for name in work.names})
        return {"of": [self._identities[name] for name in names], "works": [work.key for work in works]}

    @cached_property
    def _identities(self) -> dict[str, dict[str, object]]:
        final = self._at(FINAL)
        return {name: identity(self._run, final, objective) for name, objective in self.objectives.items()}

    def parts(self, say: Callable[[str], None]) -> list[Part]:
        """InvalidExperiment, or another sentence, for what the run does not have."""
        asked = self._asked
        self._check_clients("--clients", asked.clients)
        self._check_clients("--barriers", asked.barriers)
        named = [name for names in (*asked.lines, *asked.planes) for name in names if name != RANDOM]
        wanted = [f"client:{number}" for number in range(max(asked.barriers, asked.clients * self._draws_planes))]
        if any(name.startswith("client:") for name in (*named, *wanted)):
            say("the clients' work in one more round")
        parts: list[Part] = []
        if asked.lines:
            ends = [self._ends(*names) for names in asked.lines]
            parts.append(LinesPart(self._of, ends, (TRAINING, TEST), asked.points, asked.settings))
        views = [self._random() if names == (RANDOM,) else self._through(*names) for names in asked.planes]
        if asked.trajectory:
            views.append(self._trajectory())
        parts += [self._plane(view) for view in views]
        if asked.barriers:
            parts.append(self._barriers())
        return parts

    @property
    def _draws_planes(self) -> bool:
        return bool(self._asked.planes) or self._asked.trajectory

    def _at(self, name: str) -> Point:
        if name not in self._known:
            self._known[name] = self._points.at(name)
        return self._known[name]

    def _ends(self, start: str, end: str) -> Ends:
        first, second = self._at(start), self._at(end)
        return Ends(first.w, second.w, first.label, second.label)

    def _random(self) -> View:
        asked, final = self._asked, self._at(FINAL)
        source = torch.Generator().manual_seed(asked.seed)
        frame = around(self.objectives[TRAINING].layout, final.w, source)
        places = torch.linspace(-asked.span, asked.span, asked.points, dtype=torch.float64).tolist()
        if asked.points % 2:
            places[asked.points // 2] = 0.0
        lengths = torch.linalg.vector_norm(frame.directions, dim=1).tolist()
        return View(
            "landscape-plane",
            f"Loss around the final model of {self._of}",
            frame,
            places,
            places,
            ("direction 1, in filter lengths", "direction 2, in filter lengths"),
            {final.label: Place(0.0, 0.0, 0.0)},
            has_one_unit=True,
            facts=[
                f"1 on the axes is a distance of {lengths[0]:.3g} along direction 1, {lengths[1]:.3g} along direction 2"
            ],
            numbers={"lengths": lengths},
        )

    def _through(self, *names: str) -> View:
        models = [self._at(name) for name in names]
        first, second, third = (model.w for model in models)
        frame = through(first, second, third)
        marks = {model.label: frame.place(model.w) for model in models}
        labels = list(marks)
        if len(labels) < len(names):
            raise InvalidExperiment(f"--plane {','.join(names)}: give three different models")
        across, up = self._window(frame, marks)
        return View(
            "-".join(["landscape", *(model.file_name for model in models)]),
            f"Loss on the plane through {labels[0]}, {labels[1]} and {labels[2]} of {self._of}",
            frame,
            across,
            up,
            (f"distance from {labels[0]} towards {labels[1]}", f"distance towards {labels[2]}"),
            marks,
            has_one_unit=True,
        )

    def _trajectory(self) -> View:
        rounds = self._run.history.kept_rounds
        if len(rounds) < FEWEST_KEPT:
            raise InvalidExperiment(
                f"--trajectory: {self._of} has kept the models of {len(rounds)} rounds, and {FEWEST_KEPT} are needed; "
                "run.keep_models = 10 keeps every tenth"
            )
        models = [self._at("initial"), *(self._at(f"round:{number}") for number in rounds)]
        if models[-1].round != self._at(FINAL).round:
            models.append(self._at(FINAL))
        frame, explained = principal([model.w for model in models])
        marks = {model.label: frame.place(model.w) for model in models}
        across, up = self._window(frame, marks)
        return View(
            "landscape-trajectory",
            f"Path of the global model of {self._of}",
            frame,
            across,
            up,
            (
                f"distance along component 1, {explained[0]:.1%} of variance",
                f"component 2, {explained[1]:.1%} of variance",
            ),
            marks,
            has_one_unit=False,
            is_path=True,
            facts=[f"the plane holds {sum(explained):.1%} of the variance of {len(models)} models of the run"],
            numbers={"explained": explained},
        )

    def _window(self, frame: Frame, marks: Mapping[str, Place]) -> tuple[list[float], list[float]]:
        return window([*marks.values(), *self._clients_on(frame).values()], self._asked.points)

    def _clients_on(self, frame: Frame) -> dict[str, Place]:
        return {_client(number): frame.place(self._at(f"client:{number}").w) for number in range(self._asked.clients)}

    def _plane(self, view: View) -> PlanePart:
        settings = {**self._asked.settings, "clients": self._asked.clients}
        if view.name == "landscape-plane":
            settings["span"] = self._asked.span
        return PlanePart(view, (TRAINING, TEST), self._clients_on(view.frame), self._asked.is_exact, settings)

    def _barriers(self) -> BarriersPart:
        run, numbers = self._run, range(self._asked.barriers)
        samples = [len(run.rows_of(client)) for client in range(run.history.experiment.data.clients)]
        weights = shares(run.history.experiment.algorithm.weighting, samples)
        models = {_client(number): self._at(f"client:{number}").w for number in numbers}
        settings = {**self._asked.settings, "clients": self._asked.barriers}
        return BarriersPart(
            self._of, models, [weights[number] for number in numbers], (TRAINING, TEST), self._asked.points, settings
        )

    def _check_clients(self, option: str, asked: int) -> None:
        known = self._run.history.experiment.data.clients
        if asked > known:
            raise InvalidExperiment(f"{option} {asked}: the run has {known}")


def named(option: str, text: str, count: int) -> tuple[str, ...]:
    """The models in a list with commas; InvalidExperiment if they are not so many."""
    names = tuple(name.strip() for name in text.split(","))
    if len(names) != count or not all(names):
        form = "FROM,TO" if count == 2 else "A,B,C"
        raise InvalidExperiment(
            f"{option} {text}: give {count} models as {form}, each of initial, final, round:K, client:I, or the "
            "directory of another run, whose path has no comma"
        )
    return names


def _client(number: int) -> str:
    return f"client {number}"
