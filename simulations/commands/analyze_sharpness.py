"""`fedopt analyze sharpness`: how sharp the minimum is that a run has found.

Imports that load torch are inside the functions, so that `--help` does not wait for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedopt.commands.options import command
from fedopt.errors import InvalidExperiment
from simulations.analysis import FOLDER
from simulations.commands.analyzing import Again, AnalysisOut, At
from simulations.commands.demonstrating import Clock, DemoJson, present

if TYPE_CHECKING:
    from simulations.analysis.runs.points import Point, Points

app = command("sharpness")


@app.command(epilog="Example:  fedopt analyze sharpness runs/a --at initial --at client:3 --samples 1000")
def sharpness(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The directory of a run.")],
    at: At = None,
    rounds: Annotated[
        bool, typer.Option("--rounds", help="At the initial model and at all that run.keep_models has kept: curves.")
    ] = False,
    client: Annotated[
        int | None, typer.Option(help="A client's number: its samples' loss, and its own model if it has one.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Training samples whose mean loss is analyzed.")] = 2000,
    eigenvalues: Annotated[int, typer.Option(min=1, max=100, help="How many of the largest eigenvalues.")] = 5,
    rho: Annotated[float, typer.Option(help="Radius of the balls in which the loss rises, above 0.")] = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the samples and of random vectors.")] = 0,
    again: Again = False,
    out: AnalysisOut = None,
    as_json: DemoJson = False,
) -> None:
    """Measure how sharp the minimum is that a run has found, in float64, from Hessian-vector products.

    The Hessian's largest eigenvalues and smallest (Lanczos), its trace (Hutchinson) and spectral density (stochastic
    Lanczos quadrature); the largest rise of the loss found within balls of three norms (projected ascent, as SAM) and
    the mean rise in random directions; the noise scale of the gradient. The same command gives the same numbers.

    One model, several, or with --rounds all that the run has kept; of the training loss, or with --client of a
    client's own, so that --at client:3 --client 3 is the client's model by the client's loss.
    """
    from simulations.analysis.runs.cache import Cache
    from simulations.analysis.runs.of_run import AnalyzedRun
    from simulations.analysis.runs.points import Points
    from simulations.analysis.sharpness.measures import Settings, shown
    from simulations.analysis.sharpness.of_run import Asked, sharpness_at, side_by_side

    if not 0 < rho < float("inf"):
        raise InvalidExperiment(f"--rho {rho:g}: give a radius above 0")
    if at and rounds:
        raise InvalidExperiment("--rounds takes all saved rounds; leave out --at, or name the rounds with it")
    run = AnalyzedRun.read(directory)
    run.check_client(client)
    points = Points(run)
    chosen = (
        _saved(points, directory)
        if rounds
        else [points.at(name) for name in dict.fromkeys(at or [points.default(client)])]
    )
    say = Clock()
    asked = Asked(samples, client, Settings(eigenvalues=eigenvalues, rho=rho, seed=seed))
    found = sharpness_at(run, chosen, asked, Cache(directory, again, say), say)
    size = min(samples, len(run.setup.targets) if client is None else len(run.rows_of(client)))
    given = {"samples": size, "parameters": len(chosen[0].w), "rho": rho, "seed": seed}
    whose = "" if client is None else f", loss of client {client}"
    ending = "" if client is None else f"-client-{client}"
    if len(chosen) > 1:
        name = f"sharpness-{'rounds' if rounds else 'points'}{ending}"
        result = side_by_side(name, f"{directory}{whose}", chosen, found, given)
    else:
        (point,) = chosen
        named = f"-at-{point.file_name}" if at else ""
        of = f"{directory}, {point.label}" if at or client is not None else f"{directory}"
        result = shown(f"sharpness{named}{ending}", f"{of}{whose}", found[0], given)
    present(result, out or directory / FOLDER, as_json)


def _saved(points: Points, directory: Path) -> list[Point]:
    from fedopt.runs.model_file import kept_rounds

    found = kept_rounds(directory)
    if not found:
        raise InvalidExperiment(
            f"--rounds: {directory} has no models of single rounds; run.keep_models = 10 keeps every tenth"
        )
    return [points.at(name) for name in ("initial", *(f"round:{round_}" for round_ in found))]
