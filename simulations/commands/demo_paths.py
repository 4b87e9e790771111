"""`fedopt demo paths`: the paths of all optimizers over losses of two weights.

Imports that load torch are inside the functions, so that `--help` does not wait for it.
"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from fedopt.commands.options import command
from fedopt.errors import InvalidExperiment
from fedopt.registry import nearest
from simulations.commands.demonstrating import FOLDER, DemoJson, DemoOut, present

app = command("paths")


@app.command(epilog="Example:  fedopt demo paths ravine --steps 500")
def paths(
    surface: Annotated[
        str | None,
        typer.Argument(
            metavar="[SURFACE]",
            help="quadratic, saddle, plateau, ravine (Rosenbrock's), beale, product, (w1 w2 - 1)^2, or two-minima. "
            "[default: quadratic]",
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All surfaces, one after the other.")] = False,
    steps: Annotated[
        int | None,
        typer.Option(min=1, max=100_000, help="Steps of each optimizer. [default: the surface's, 80 or 200]"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the noise.")] = 0,
    out: DemoOut = FOLDER,
    as_json: DemoJson = False,
) -> None:
    """Draw 25 paths of optimizers, step sizes and batches over the contours of a loss of two weights.

    Six panels: step sizes that are too small, right, too large and much too large; noise, as of batches of 16 samples
    and of one; momentum and averages; adaptive rates; SAM and layer-wise rates; curvature. A square is the start, stars
    are the minima. paths.html, beside the figures, is a page for a browser, on which you move the start, the rate and
    the momentum yourself.
    """
    from simulations.analysis.demos.paths import demonstrate
    from simulations.analysis.demos.paths_page.page import write_page
    from simulations.analysis.demos.surfaces import SURFACES

    if surface is not None and every:
        raise InvalidExperiment(f"--all draws {surface} as well; give one of them")
    if surface is not None and surface not in SURFACES:
        raise InvalidExperiment(f"unknown surface {surface!r}; {nearest(surface, SURFACES)}")
    shown = surface or next(iter(SURFACES))
    if not every:
        present(demonstrate(shown, steps, seed), out, as_json)
        file = write_page(shown, out)
        if not as_json:
            print(f"{file}: a page on which you move start, rate and momentum")
        return
    summaries = []
    for name in SURFACES:
        found = demonstrate(name, steps, seed)
        files = found.write(out)
        summaries.append(found.summary())
        if not as_json:
            print(f"{name}: {', '.join(file.name for file in files)}")
    file = write_page(shown, out)
    if as_json:
        print(json.dumps(summaries, ensure_ascii=False))
    else:
        print(f"{file}: a page on which you move start, rate and momentum")
        print(f"{len(summaries)} surfaces in {out}; fedopt demo paths NAME prints where each optimizer ends")
