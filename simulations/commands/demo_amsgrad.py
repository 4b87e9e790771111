"""`fedopt demo amsgrad`: Adam's counterexample.

Imports that load torch are inside the functions, so that `--help` does not wait for it.
"""

from __future__ import annotations

from typing import Annotated

import typer

from fedopt.commands.options import command
from fedopt.errors import InvalidExperiment
from simulations.commands.demonstrating import FOLDER, DemoJson, DemoOut, present

app = command("amsgrad")


@app.command(epilog="Example:  fedopt demo amsgrad --steps 3000")
def amsgrad(
    steps: Annotated[int, typer.Option(min=3, help="Steps of each optimizer.")] = 999,
    large: Annotated[float, typer.Option(metavar="C", help="Slope of every third loss, above 2.")] = 3.0,
    out: DemoOut = FOLDER,
    as_json: DemoJson = False,
) -> None:
    """Run Adam and AMSGrad on the online problem of Reddi et al. 2018, section 3.

    Every third loss is C x, the others are -x, and x stays in [-1, 1], so -1 is best. Adam with a short memory of
    squared gradients ends at 1, the worst point; AMSGrad, Adam with a long memory, and SGD approach -1.
    """
    from simulations.analysis.demos.amsgrad import demonstrate

    if not large > 2:
        raise InvalidExperiment(f"--large {large:g}: the sum of three losses falls towards -1 only for C above 2")
    present(demonstrate(steps, large), out, as_json)
