"""`fedopt demo drift`: client drift in the plane.

Imports that load torch are inside the functions, so that `--help` does not wait for it.
"""

from __future__ import annotations

from typing import Annotated

import typer

from fedopt.commands.options import command
from fedopt.errors import InvalidExperiment
from simulations.commands.demonstrating import FOLDER, DemoJson, DemoOut, present

app = command("drift")


@app.command(epilog="Example:  fedopt demo drift --local-steps 50")
def drift(
    local_steps: Annotated[int, typer.Option(min=1, max=1000, help="Local steps of each client in a round.")] = 10,
    lr: Annotated[float, typer.Option(help="Local learning rate, above 0 and below 0.4.")] = 0.1,
    rounds: Annotated[int, typer.Option(min=1, max=10_000, help="Rounds of each method.")] = 60,
    out: DemoOut = FOLDER,
    as_json: DemoJson = False,
) -> None:
    """Draw how two clients with quadratic losses pull a model apart, and what four methods make of it.

    Left: both clients' local steps in the first round, and where FedAvg rests for more and more local steps. Middle:
    the server's model over the rounds. Right: its distance from the optimum. Crosses are the clients' minima, a star is
    that of the mean loss.
    """
    from simulations.analysis.demos.drift import demonstrate

    if not 0 < lr < 0.4:
        raise InvalidExperiment(
            f"--lr {lr:g}: give a rate above 0 and below 0.4, where FedProx's steps become unstable"
        )
    present(demonstrate(local_steps, lr, rounds), out, as_json)
