"""`fedopt demo weight-decay`: L2 against decoupled weight decay under Adam.

Imports that load torch are inside the functions, so that `--help` does not wait for it.
"""

from __future__ import annotations

from typing import Annotated

import typer

from fedopt.commands.options import command
from fedopt.errors import InvalidExperiment
from simulations.commands.demonstrating import FOLDER, DemoJson, DemoOut, present

app = command("weight-decay")


@app.command(epilog="Example:  fedopt demo weight-decay --decay 0.3")
def weight_decay(
    steps: Annotated[int, typer.Option(min=2, help="Steps of each run; the second half is averaged.")] = 2000,
    lr: Annotated[float, typer.Option(help="Learning rate, above 0 and at most 0.1.")] = 0.01,
    decay: Annotated[float, typer.Option(help="Weight decay, at least 0 and at most 1.")] = 0.1,
    runs: Annotated[int, typer.Option(min=1, help="Independent runs; the figures are their means.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the noise.")] = 0,
    out: DemoOut = FOLDER,
    as_json: DemoJson = False,
) -> None:
    """Run Adam with L2, AdamW and SGD on weights whose gradients have more and more noise.

    Every weight has the loss (w - 1)^2 / 2, so that only the penalty and the noise decide where it rests. L2 inside
    Adam shrinks all weights alike; AdamW shrinks those with large gradients more. Dots are the runs, lines the theory.
    """
    from simulations.analysis.demos.weight_decay import demonstrate

    if not 0 < lr <= 0.1:
        raise InvalidExperiment(f"--lr {lr:g}: give a rate above 0 and at most 0.1; the theory is of small steps")
    if not 0 <= decay <= 1:
        raise InvalidExperiment(f"--decay {decay:g}: give a weight decay from 0 to 1")
    present(demonstrate(steps, lr, decay, runs, seed), out, as_json)
