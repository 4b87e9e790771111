"""Sharpness at several models of a run: computed once each, as a table and as curves over the rounds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

from fedopt.device import threads
from simulations.analysis.result import Result, Value
from simulations.analysis.runs.cache import Cache, identity
from simulations.analysis.runs.objective import CHUNK, Objective
from simulations.analysis.runs.of_run import AnalyzedRun
from simulations.analysis.runs.points import Point
from simulations.analysis.runs.thread_count import threads_for
from simulations.analysis.sharpness.measures import NORMS, Settings, Sharpness, measure
from simulations.report.style import COLORS, DASHES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KIND = "sharpness"

TRIAL = 0.3
"""Seconds in which the time of a product is measured, about."""

COLUMNS = (
    *("point", "round", "loss", "gradient norm", "largest eigenvalue", "smallest eigenvalue", "trace", "trace error"),
    *(f"worst rise {norm}" for norm in NORMS),
    *("average rise", "average rise error", "noise scale"),
)


@dataclass(frozen=True)
class Asked:
    """What is measured of every model."""

    samples: int
    client: int | None
    """Whose loss it is; None for the training loss of all."""
    settings: Settings


def sharpness_at(
    run: AnalyzedRun, points: Sequence[Point], asked: Asked, cache: Cache, say: Callable[[str], None]
) -> list[Sharpness]:
    """The measures at each point, from the cache where it has them; `say` is called with an estimate of the time that
    the others take."""
    settings = asked.settings

    def objective(point: Point) -> Objective:  # made when it is needed, since each has a copy of the samples
        return run.objective(asked.samples, settings.seed, asked.client, at=point.module)

    def compute(point: Point, progress: Callable[[str], None]) -> Sharpness:
        return measure(objective(point), point.w, settings, progress)

    first, found = objective(points[0]), list[Sharpness]()
    with threads(threads_for(len(points[0].w), min(first.samples, CHUNK))):
        keys = [
            {**identity(run, point, objective(point)), "client": asked.client, **asdict(settings)} for point in points
        ]
        unknown = sum(not cache.has(KIND, key) for key in keys)
        if unknown:
            each = _seconds(partial(first.product, points[0].w, points[0].w))
            products = unknown * settings.products
            say(f"about {each * products:.0f} s: {products} Hessian-vector products of {each:.2g} s")
        for place, (point, key) in enumerate(zip(points, keys, strict=True), 1):
            progress = say if len(points) == 1 else _Step(say, f"{place}/{len(points)} {point.label}")
            found.append(cache.part(KIND, Sharpness, key, partial(compute, point, progress)))
    return found


class _Step:
    """Says once that a point is begun, at its first part."""

    def __init__(self, say: Callable[[str], None], what: str) -> None:
        self._say, self._what = say, what

    def __call__(self, _part: str) -> None:
        if self._what:
            self._say(self._what)
        self._what = ""


def _seconds(product: Callable[[], object]) -> float:
    """Of one call on average, after the first, which prepares kernels."""
    product()
    calls, before = 0, time.monotonic()
    while calls < 10 and time.monotonic() - before < TRIAL:
        product()
        calls += 1
    return (time.monotonic() - before) / calls


def side_by_side(
    name: str, of: str, points: Sequence[Point], found: Sequence[Sharpness], settings: Mapping[str, Value]
) -> Result:
    """The measures of several models: a sentence and a row for each, and a figure."""
    pairs = list(zip(points, found, strict=True))
    return Result(
        name,
        f"Sharpness of {of}",
        [_sentence(point, one) for point, one in pairs],
        settings,
        COLUMNS,
        [_row(point, one) for point, one in pairs],
        partial(_figure, points, found),
        {"points": {point.name: _numbers(point, one) for point, one in pairs}},
    )


def _sentence(point: Point, found: Sharpness) -> str:
    return (
        f"{point.label}: loss {found.loss:.4g}, largest eigenvalue {found.largest[0]:.4g}, "
        f"trace {found.trace:.4g} ± {found.trace_error:.2g}, worst rise {found.worst['2']:.3g} within |e|_2 <= rho"
    )


def _row(point: Point, found: Sharpness) -> Sequence[Value]:
    return (
        *(point.label, point.round, found.loss, found.gradient, found.largest[0], found.smallest),
        *(found.trace, found.trace_error, *(found.worst[norm] for norm in NORMS)),
        *(found.average, found.average_error, found.noise_scale),
    )


def _numbers(point: Point, found: Sharpness) -> dict[str, object]:
    measures = {key: value for key, value in asdict(found).items() if key != "spectrum"}
    return {"label": point.label, "round": point.round, **measures}


def _figure(points: Sequence[Point], found: Sequence[Sharpness]) -> Figure:
    from simulations.report.shown import ShownFigure

    figure = ShownFigure(figsize=(6.8, 4.6), layout="constrained")
    (loss, largest), (trace, worst) = figure.subplots(2, 2)
    is_curve = all(point.is_global for point in points)
    places = [float(point.round or 0) if is_curve else float(place) for place, point in enumerate(points)]
    line = "-" if is_curve else ""
    loss.plot(places, [one.loss for one in found], color=COLORS[0], marker="o", markersize=4, linestyle=line)
    loss.set_ylabel("loss")
    tops = [one.largest[0] for one in found]
    largest.plot(places, tops, color=COLORS[0], marker="o", markersize=4, linestyle=line)
    largest.set_ylabel("largest eigenvalue")
    errors = [one.trace_error for one in found]
    traces = [one.trace for one in found]
    trace.errorbar(places, traces, errors, color=COLORS[0], marker="o", markersize=4, linestyle=line, capsize=2)
    trace.set_ylabel("trace, ± standard error")
    for rank, (norm, radius) in enumerate(NORMS.items()):
        rises = [one.worst[norm] for one in found]
        style = {"linestyle": DASHES[rank] if is_curve else "", "marker": "osv"[rank], "markersize": 4}
        worst.plot(places, rises, color=COLORS[rank], label=f"$|e|_{{{_norm(norm)}}}$ ≤ {_norm(radius)}", **style)
    worst.set_ylabel("worst rise of the loss")
    worst.set_yscale("log", nonpositive="clip")
    worst.legend(frameon=False, fontsize=7)
    for panel in (loss, largest, trace, worst):
        _label(panel, points, places, is_curve)
    return figure


def _label(panel: Axes, points: Sequence[Point], places: Sequence[float], is_curve: bool) -> None:
    if is_curve:
        panel.set_xlabel("round")
        return
    panel.set_xticks(places, [point.label for point in points], rotation=30, ha="right", fontsize=7)
    panel.set_xlim(-0.5, len(points) - 0.5)


def _norm(text: str) -> str:
    return text.replace("inf", r"\infty") if text == "inf" else text.replace("rho", "ρ").replace("sqrt(P)", "√P")
