"""`fedopt partition`: how an experiment spreads its data over clients, as a table and as a figure."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from fedopt.commands.options import ExperimentFile, Overrides, command
from fedopt.data.dataset import Dataset, load_dataset
from fedopt.data.label_skew import LabelSkew
from fedopt.data.partition import partition as make_partition
from fedopt.errors import InvalidExperiment
from fedopt.experiment.file import read_experiment

app = command("partition")

SHOWN_CLASSES = 12
"""At most so many classes have a column, and fewer where they do not fit; --json and --plot show them all."""


@app.command(epilog="Example:  fedopt partition --set data.alpha=0.5 --plot partition.png")
def partition(
    experiment: ExperimentFile = None,
    overrides: Overrides = None,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw it: .png, .svg or .pdf.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of the table.")] = False,
) -> None:
    """Show each client's samples by class, its size, its label entropy and its distance from the whole.

    Entropy is in bits: 0 for a single label. Distance is the total variation between the client's label
    distribution and that of all clients together: 0 for the same, near 1 for one that has little in common.
    """
    settings = read_experiment(experiment, overrides or [])
    if plot is not None and plot.suffix not in (".png", ".svg", ".pdf"):
        raise InvalidExperiment(f"--plot {plot}: its ending says the format; choose .png, .svg or .pdf")
    dataset = load_dataset(settings.data, settings.run.seed)
    parts = make_partition(dataset, settings.data, settings.run.seed)
    skew = LabelSkew.of(dataset.y_train.numpy(), parts, dataset.classes)
    for sentence in dataset.notes:
        print(f"note: {sentence}", file=sys.stderr)
    if as_json:
        print(json.dumps(_as_dict(skew, dataset.class_names)))
    else:
        _print_table(skew, dataset)
    if plot is not None:
        draw(skew, dataset.class_names, plot)
        if not as_json:
            print(f"drawn to {plot}")


def _as_dict(skew: LabelSkew, names: tuple[str, ...]) -> dict[str, object]:
    return {
        "classes": list(names),
        "counts": skew.counts.tolist(),
        "sizes": skew.sizes.tolist(),
        "entropies": skew.entropies.tolist(),
        "distances": skew.distances.tolist(),
    }


def _print_table(skew: LabelSkew, dataset: Dataset) -> None:
    console = Console()
    shown = min(dataset.classes, SHOWN_CLASSES)
    boundless = console.options.update(max_width=10_000)
    while shown and console.measure(_table(skew, dataset, shown), options=boundless).maximum > console.width:
        shown -= 1
    console.print(_table(skew, dataset, shown))
    console.print(
        f"{len(skew.counts)} clients, {skew.sizes.sum()} samples, sizes {skew.sizes.min()} to "
        f"{skew.sizes.max()} (median {np.median(skew.sizes):g}); mean entropy {skew.entropies.mean():.2f} of "
        f"{np.log2(dataset.classes):.2f} bits, mean distance {skew.distances.mean():.2f}"
    )


def _table(skew: LabelSkew, dataset: Dataset, shown: int) -> Table:
    """The first `shown` classes have columns of their own."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("client", justify="right")
    for name in dataset.class_names[:shown]:
        table.add_column(name, justify="right")
    if shown < dataset.classes:
        table.add_column(f"+{dataset.classes - shown} classes", justify="right")
    for title in ("size", "entropy", "distance"):
        table.add_column(title, justify="right")
    for client, counts in enumerate(skew.counts):
        rest = [str(counts[shown:].sum())] if shown < dataset.classes else []
        table.add_row(
            str(client),
            *(str(count) if count else "[dim]·[/dim]" for count in counts[:shown]),
            *rest,
            str(skew.sizes[client]),
            f"{skew.entropies[client]:.2f}",
            f"{skew.distances[client]:.2f}",
        )
    return table


def draw(skew: LabelSkew, names: tuple[str, ...], file: Path) -> None:
    """A bubble for each client and class, its area the number of samples; sizes as bars above."""
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
    bubbles.xaxis.set_major_locator(MaxNLocator(integer=True))
    bubbles.set_xlim(-0.7, clients - 0.3)
    bubbles.set_ylim(-0.7, classes - 0.3)
    for axes in (sizes, bubbles):
        axes.spines[["top", "right"]].set_visible(False)
    try:
        figure.savefig(file, dpi=150)
    except OSError as error:
        raise InvalidExperiment(f"--plot {file} cannot be written: {error.strerror}") from error
