"""`fedopt demo rates`: convergence against theory.

Imports that load torch are inside the functions, so that `--help` does not wait for it.
"""

from __future__ import annotations

from typing import Annotated

import typer

from fedopt.commands.options import command
from simulations.commands.demonstrating import FOLDER, DemoJson, DemoOut, present

app = command("rates")


@app.command(epilog="Example:  fedopt demo rates --steps 500")
def rates(
    steps: Annotated[int, typer.Option(min=20, max=10_000, help="Steps of each run.")] = 200,
    runs: Annotated[int, typer.Option(min=2, help="Independent runs where there is noise.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the noise.")] = 0,
    out: DemoOut = FOLDER,
    as_json: DemoJson = False,
) -> None:
    """Measure convergence on quadratics with known constants, beside what theory promises.

    Six panels: gradient descent on a smooth convex loss and its 1/k bound; linear convergence, and heavy ball's square
    root of the condition number; noise under constant rates and under 1/t; one dimension, (w - w_n)^2; the mean squared
    gradient over the batch and its bound; steps to a target over the batch, with the point of diminishing returns.
    """
    from simulations.analysis.demos.rates import demonstrate

    present(demonstrate(steps, runs, seed), out, as_json)
