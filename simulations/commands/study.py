"""`fedopt study`: FedAvg against SCAFFOLD on one experiment, over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from fedopt.algorithms import ALGORITHMS
from fedopt.commands.options import ExperimentFile, Overrides, command
from fedopt.experiment_file import read_experiment
from fedopt.history import History
from fedopt.runs import check_unused
from simulations.study import Spread, run_study, variants

app = command("study")

TARGET = "run.target_accuracy=0.9"


@app.command(epilog="Example:  fedopt study --seeds 5 --set data.alpha=0.5")
def study(
    experiment: ExperimentFile = None,
    overrides: Overrides = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, metavar="N", help="Seeds 0 to N-1.")] = 3,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="A new directory for the runs; by default below runs/."),
    ] = None,
) -> None:
    """Compare the algorithms on one experiment (non-IID digits without one), over seeds.

    Every algorithm sees the same clients, initial weights, cohorts and minibatches. Each run gets its own
    directory, so every figure of the table can be traced.
    """
    base = read_experiment(experiment, [TARGET, *(overrides or [])])
    out = out or Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-study-{base.data.name}"
    check_unused(out)
    experiments = variants(base, list(ALGORITHMS), seeds)
    console = Console()
    console.print(
        f"{base.data.name}, {base.data.clients} clients, {base.data.partition} alpha {base.data.alpha:g}, "
        f"{base.cohort_size} a round, {base.run.rounds} rounds, {seeds} seeds",
        highlight=False,
        soft_wrap=True,
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("runs", total=len(experiments))
        histories = run_study(experiments, out, done=lambda _: bar.advance(task))
    console.print(table(histories))
    console.print(paired(histories), highlight=False, soft_wrap=True)
    console.print(f"results in {out}", highlight=False, soft_wrap=True)


def table(histories: Sequence[History]) -> Table:
    """Mean ± standard deviation over seeds; the best final accuracy in bold."""
    target = histories[0].experiment.run.target_accuracy
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("algorithm")
    for title in ("final accuracy", "best accuracy", f"rounds to {target:.0%}", "seconds"):
        shown.add_column(title, justify="right")
    groups = _by_algorithm(histories)
    means = {name: Spread.of([h.summary.final.test_accuracy for h in group]) for name, group in groups.items()}
    winner = max(means, key=lambda name: means[name].mean)
    for name, group in groups.items():
        final, best = means[name], Spread.of([h.summary.best.test_accuracy for h in group])
        reached = [h.summary.rounds_to_target for h in group]
        rounds = ", ".join("never" if value is None else str(value) for value in reached)
        style = "bold" if name == winner else ""
        seconds = Spread.of([h.summary.seconds for h in group])
        shown.add_row(name, _percent(final), _percent(best), rounds, f"{seconds.mean:.1f}", style=style)
    return shown


def paired(histories: Sequence[History]) -> str:
    """The difference in final accuracy, seed by seed, of each algorithm to the first."""
    groups = _by_algorithm(histories)
    (first, reference), *others = groups.items()
    lines = []
    for name, group in others:
        gains = [
            100 * (b.summary.final.test_accuracy - a.summary.final.test_accuracy)
            for a, b in zip(reference, group, strict=True)
        ]
        each = ", ".join(f"{gain:+.1f}" for gain in gains)
        lines.append(f"{name} - {first}, seed by seed: {each} points")
    return "\n".join(lines)


def _by_algorithm(histories: Sequence[History]) -> dict[str, list[History]]:
    groups: dict[str, list[History]] = {}
    for history in histories:
        groups.setdefault(history.experiment.algorithm.name, []).append(history)
    return groups


def _percent(spread: Spread) -> str:
    return f"{spread.mean:.1%} ± {spread.deviation:.1%}"
