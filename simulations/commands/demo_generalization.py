"""`fedopt demo generalization`: the gap between training and test.

Imports that load torch are inside the functions, so that `--help` does not wait for it.
"""

from __future__ import annotations

from typing import Annotated

import typer

from fedopt.commands.options import command
from simulations.commands.demonstrating import FOLDER, DemoJson, DemoOut, present

app = command("generalization")


@app.command(epilog="Example:  fedopt demo generalization --epochs 200")
def generalization(
    epochs: Annotated[int, typer.Option(min=2, max=10_000, help="Epochs; the comparison of batches takes half.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Seed of weights, minibatches and random labels.")] = 0,
    out: DemoOut = FOLDER,
    as_json: DemoJson = False,
) -> None:
    """Draw the gap between training and test: on a line, with random labels, and for small and large batches.

    Left: a number fitted to n samples; the gap falls like 1/n. Middle: a network on the digits, which fits the true
    labels and labels drawn at random alike; only the true ones carry over to the test set. Right: small and large
    batches for as many epochs, and a rate that grows with the batch.
    """
    from simulations.analysis.demos.generalization import demonstrate

    present(demonstrate(epochs, seed), out, as_json)
