"""`fedopt list`: the names an experiment may use."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from fedopt.algorithms import ALGORITHMS
from fedopt.commands.options import command
from fedopt.data import PARTITIONS, SOURCES
from fedopt.models import MODELS
from fedopt.optimizers import OPTIMIZERS

app = command("list")

KINDS = {
    "data.name": SOURCES,
    "data.partition": PARTITIONS,
    "model.name": MODELS,
    "algorithm.name": ALGORITHMS,
    "local.optimizer": OPTIMIZERS,
}


@app.command(epilog="Example:  fedopt list")
def names() -> None:
    """List the names an experiment may use: data, partitions, models, algorithms, optimizers."""
    table = Table("key", "names", box=None, pad_edge=False)
    for key, registry in KINDS.items():
        table.add_row(key, ", ".join(registry) + (", package.module:function" if registry is MODELS else ""))
    Console().print(table)
