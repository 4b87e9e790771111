"""`fedopt analyze sharpness`: how sharp the minimum is that a run has found.

Imports that load torch are inside the functions, so that `--help` does not wait for it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from fedopt.commands.options import command
from fedopt.errors import InvalidExperiment
from simulations.commands.demonstrating import Clock, DemoJson, present

app = command("sharpness")


@app.command(epilog="Example:  fedopt analyze sharpness runs/a --samples 1000")
def sharpness(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The directory of a run.")],
    samples: Annotated[int, typer.Option(min=1, help="Training samples whose mean loss is analyzed.")] = 2000,
    eigenvalues: Annotated[int, typer.Option(min=1, max=100, help="How many of the largest eigenvalues.")] = 5,
    rho: Annotated[float, typer.Option(help="Radius of the balls in which the loss rises, above 0.")] = 0.05,
    client: Annotated[
        int | None, typer.Option(help="A client's number: its samples, and its own model if it has one.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the samples and of random vectors.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder for the files. [default: analysis/ in DIR]")
    ] = None,
    as_json: DemoJson = False,
) -> None:
    """Measure how sharp the minimum is that a run has found, in float64, from Hessian-vector products.

    The Hessian's largest eigenvalues and smallest (Lanczos), its trace (Hutchinson) and spectral density (stochastic
    Lanczos quadrature); the largest rise of the loss found within balls of three norms (projected ascent, as SAM) and
    the mean rise in random directions; the noise scale of the gradient. The same command gives the same numbers.
    """
    from simulations.analysis.of_run import AnalyzedRun
    from simulations.analysis.sharpness import Settings, measure, shown

    if not 0 < rho < float("inf"):
        raise InvalidExperiment(f"--rho {rho:g}: give a radius above 0")
    settings = Settings(eigenvalues=eigenvalues, rho=rho, seed=seed)
    objective = AnalyzedRun.read(directory).objective(samples, seed, client)
    before = time.monotonic()
    objective.product(objective.start, objective.start)
    each = time.monotonic() - before
    say = Clock()
    say(f"about {each * settings.products:.0f} s: {settings.products} Hessian-vector products of {each:.2g} s")
    found = measure(objective, objective.start, settings, say)
    of = f"{directory}" if client is None else f"client {client} of {directory}"
    name = "sharpness" if client is None else f"sharpness-client-{client}"
    given = {"samples": objective.samples, "parameters": len(objective.start), "rho": rho, "seed": seed}
    present(shown(name, of, found, given), out or directory / "analysis", as_json)
