"""`fedopt partition`: how an experiment spreads its data over clients, as a table and as a figure.

Imports that load torch are inside the functions, so that `--help` does not wait for it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fedopt.commands.options import ExperimentFile, Overrides, command
from fedopt.errors import InvalidExperiment
from fedopt.text import count

if TYPE_CHECKING:
    from fedopt.data.dataset import Dataset
    from fedopt.data.label_skew import LabelSkew

app = command("partition")

CLASS_COLUMNS = 12
"""The most classes that have a column of their own; fewer if the terminal is narrow. --json and --plot have all."""


@app.command(epilog="Example:  fedopt partition --set data.alpha=0.5 --plot partition.png")
def partition(
    experiment: ExperimentFile = None,
    overrides: Overrides = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Also write a figure: .png, .svg or .pdf.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """Show each client's samples by class, its size, its label entropy and its distance from the average client.

    Entropy is in bits: 0 for a single label. Distance is the total variation between the client's label
    distribution and the distribution over all clients: 0 if they are equal, 1 if they are disjoint.
    """
    from fedopt.data.label_skew import LabelSkew
    from fedopt.data.loading import load_dataset
    from fedopt.data.partition import partition as make_partition
    from fedopt.experiment.file import read_experiment

    settings = read_experiment(experiment, overrides or [])
    if plot is not None and plot.suffix not in (".png", ".svg", ".pdf"):
        raise InvalidExperiment(f"--plot {plot}: its ending says the format; choose .png, .svg or .pdf")
    dataset = load_dataset(settings.data, settings.run.seed)
    parts = make_partition(dataset, settings.data, settings.run.seed)
    clients = dataset.names_of(parts)
    if dataset.has_numbers:
        dataset = dataset.as_one_class()
    skew = LabelSkew.of(dataset.y_train.numpy(), parts, dataset.classes)
    for sentence in dataset.notes:
        print(f"note: {sentence}", file=sys.stderr)
    if as_json:
        print(json.dumps(_as_dict(skew, dataset.class_names, clients)))
    else:
        _print_table(skew, dataset, clients)
    if plot is not None:
        draw(skew, dataset.class_names, plot, clients)
        if not as_json:
            print(f"drawn to {plot}")


def _as_dict(skew: LabelSkew, names: tuple[str, ...], clients: tuple[str, ...]) -> dict[str, object]:
    return {
        "classes": list(names),
        **({"clients": list(clients)} if clients else {}),
        "counts": skew.counts.tolist(),
        "sizes": skew.sizes.tolist(),
        "entropies": skew.entropies.tolist(),
        "distances": skew.distances.tolist(),
    }


def _print_table(skew: LabelSkew, dataset: Dataset, clients: tuple[str, ...]) -> None:
    import numpy as np

    console = Console()
    columns = min(dataset.classes, CLASS_COLUMNS)
    unlimited = console.options.update(max_width=10_000)
    while (
        columns and console.measure(_table(skew, dataset, clients, columns), options=unlimited).maximum > console.width
    ):
        columns -= 1
    console.print(_table(skew, dataset, clients, columns))
    console.print(
        f"{count(len(skew.counts), 'client')}, {skew.sizes.sum()} samples, sizes {skew.sizes.min()} to "
        f"{skew.sizes.max()} (median {np.median(skew.sizes):g}); mean entropy {skew.entropies.mean():.2f} of "
        f"{np.log2(dataset.classes):.2f} bits, mean distance {skew.distances.mean():.2f}"
    )


def _table(skew: LabelSkew, dataset: Dataset, clients: tuple[str, ...], columns: int) -> Table:
    """The first `columns` classes have a column each, the others share one."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("client", justify="left" if clients else "right")
    for name in dataset.class_names[:columns]:
        table.add_column(name, justify="right")
    if columns < dataset.classes:
        table.add_column(f"+{dataset.classes - columns} classes", justify="right")
    for title in ("size", "entropy", "distance"):
        table.add_column(title, justify="right")
    for client, counts in enumerate(skew.counts):
        rest = [str(counts[columns:].sum())] if columns < dataset.classes else []
        table.add_row(
            escape(clients[client]) if clients else str(client),
            *(str(n) if n else "[dim]·[/dim]" for n in counts[:columns]),
            *rest,
            str(skew.sizes[client]),
            f"{skew.entropies[client]:.2f}",
            f"{skew.distances[client]:.2f}",
        )
    return table


def draw(skew: LabelSkew, names: tuple[str, ...], file: Path, own_names: tuple[str, ...]) -> None:
    """Writes a figure: a bubble for each client and class, its area the number of samples; above, sizes as bars."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    clients, classes = skew.counts.shape
    figure = Figure(figsize=(min(2 + 0.28 * clients, 24), min(2 + 0.28 * classes, 16)), layout="constrained")
    FigureCanvasAgg(figure)
    sizes, bubbles = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": [1, 3]})
    sizes.bar(range(clients), skew.sizes, color="#0072B2")
    sizes.set_ylabel("samples")
    client, label = np.nonzero(skew.counts)
    area = skew.counts[client, label] / skew.counts.max() * 180
    bubbles.scatter(client, label, s=area, c=label, cmap="viridis", alpha=0.85, linewidths=0)
    bubbles.set_xlabel("client")
    bubbles.set_ylabel("class")
    if classes <= 50:
        bubbles.set_yticks(range(classes), names)
    if own_names and clients <= 50:
        bubbles.set_xticks(range(clients), own_names, rotation=45, ha="right", rotation_mode="anchor")
    else:
        bubbles.xaxis.set_major_locator(MaxNLocator(integer=True))
    bubbles.set_xlim(-0.7, clients - 0.3)
    bubbles.set_ylim(-0.7, classes - 0.3)
    for axes in (sizes, bubbles):
        axes.spines[["top", "right"]].set_visible(False)
    try:
        figure.savefig(file, dpi=150)
    except OSError as error:
        raise InvalidExperiment(f"--plot {file} cannot be written: {error.strerror}") from error
