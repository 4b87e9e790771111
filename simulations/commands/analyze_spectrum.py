"""`fedopt analyze spectrum`: how the gradients of a run's clients lie to each other.

Imports that load torch are inside the functions, so that `--help` does not wait for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedopt.commands.options import command
from simulations.analysis import FOLDER
from simulations.commands.analyzing import MODELS, Again, AnalysisOut
from simulations.commands.demonstrating import Clock, DemoJson, present

app = command("spectrum")


@app.command(epilog="Example:  fedopt analyze spectrum runs/a --at initial")
def spectrum(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The directory of a run.")],
    at: Annotated[str, typer.Option("--at", metavar="MODEL", help=f"{MODELS}.")] = "final",
    clients: Annotated[
        int | None, typer.Option(min=1, help="So many clients, from client 0 on.  [default: all]")
    ] = None,
    again: Again = False,
    out: AnalysisOut = None,
    as_json: DemoJson = False,
) -> None:
    """Measure how clients differ: the gradients of their losses at one model, in float64, on all of their samples.

    The eigenvalues of the gradients' covariance, the share of the largest and the effective dimension; the
    dissimilarity sum p_i |g_i - g|^2 / |g|^2, and B^2 of SCAFFOLD's analysis; the angles between the gradients of each
    two clients. All of it also for each layer. Clients are weighted as the run weights them (algorithm.weighting);
    penalties local.l1 and local.l2 are left out.
    """
    from simulations.analysis.heterogeneity.spectrum import shown, spectrum_at
    from simulations.analysis.runs.cache import Cache
    from simulations.analysis.runs.of_run import AnalyzedRun
    from simulations.analysis.runs.points import Points

    run = AnalyzedRun.read(directory)
    point = Points(run).at(at)
    say = Clock()
    some = clients or run.history.experiment.data.clients
    found = spectrum_at(run, point, some, Cache(directory, again, say), say)
    name = "spectrum" if at == "final" else f"spectrum-at-{point.file_name}"
    weighting = run.history.experiment.algorithm.weighting
    given = {"clients": some, "parameters": len(point.w), "weighting": weighting, "at": at}
    present(shown(name, f"{directory}, {point.label}", found, weighting, given), out or directory / FOLDER, as_json)
