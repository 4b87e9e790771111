"""`fedopt demo lookahead`: Lookahead on a noisy quadratic.

Imports that load torch are inside the functions, so that `--help` does not wait for it.
"""

from __future__ import annotations

from typing import Annotated

import typer

from fedopt.commands.options import command
from fedopt.errors import InvalidExperiment
from simulations.commands.demonstrating import FOLDER, DemoJson, DemoOut, present

app = command("lookahead")


@app.command(epilog="Example:  fedopt demo lookahead --lr 0.2 --period 10")
def lookahead(
    steps: Annotated[int, typer.Option(min=1, help="Steps of each run.")] = 200,
    lr: Annotated[float, typer.Option(help="Learning rate, above 0 and below 1.")] = 0.5,
    period: Annotated[int, typer.Option(min=1, help="Steps between two updates of the slow weights.")] = 5,
    slow_step: Annotated[float, typer.Option(help="Their step, above 0 and at most 1.")] = 0.5,
    runs: Annotated[int, typer.Option(min=1, help="Independent runs; the curves are their means.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the noise.")] = 0,
    out: DemoOut = FOLDER,
    as_json: DemoJson = False,
) -> None:
    """Run SGD and Lookahead on the noisy quadratic of Zhang et al. 2019, beside the exact expected loss.

    The loss has 20 entries with curvatures 1, 1/2, ..., 1/20 and a minimum that is drawn anew in each step. At the
    same rate Lookahead ends with less noise than SGD. SGD is also run at the rate times the slow step.
    """
    from simulations.analysis.demos.lookahead import demonstrate

    if not 0 < lr < 1:
        raise InvalidExperiment(f"--lr {lr:g}: give a rate above 0 and below 1; the largest curvature is 1")
    if not 0 < slow_step <= 1:
        raise InvalidExperiment(f"--slow-step {slow_step:g}: give a step above 0 and at most 1")
    present(demonstrate(steps, lr, period, slow_step, runs, seed), out, as_json)
