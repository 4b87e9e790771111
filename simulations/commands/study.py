"""`fedopt study`: a grid of experiments over seeds, its tables and its report."""

from __future__ import annotations

import itertools
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from fedopt.commands.options import Overrides, Quiet, command
from fedopt.errors import FedoptError, NotStored
from fedopt.files import replace_file, storing
from fedopt.past_runs import DIVERGED
from fedopt.runner import Interrupted
from simulations.comparison import columns, is_winner, paired
from simulations.report.page import page
from simulations.results import Results, axis_title, read_results
from simulations.study.conduct import Outcome, conduct
from simulations.study.display import display
from simulations.study.file import Study, read_study
from simulations.study.plan import PlannedRun, combinations, planned_runs, search_runs
from simulations.study.tables import results_csv, summary_md
from simulations.study.workers import cores

app = command("study")


class SomeFailed(FedoptError):
    """The study is done, but not all of its runs."""


@app.command(epilog="Example:  fedopt study mnist-alpha --set data.path=../shared/data --seeds 3 --out runs/alpha")
def study(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="[STUDY]", help="STUDY.toml, the name of a shipped study, or an experiment file. [default: digits]"
        ),
    ] = None,
    overrides: Overrides = None,
    seeds: Annotated[int | None, typer.Option("--seeds", min=1, metavar="N", help="Seeds 0 to N-1.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="The study's directory, new or begun; by default below runs/."),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, metavar="N", help="Processes of one thread. [default: cores]"),
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Repeat runs that failed before.")] = False,
    dry: Annotated[bool, typer.Option("--dry-run", help="List the runs, and stop.")] = False,
    quiet: Quiet = False,
) -> None:
    """Run a study: every combination of a grid of experiments, over seeds, in parallel.

    STUDY is a file, the name of a shipped study, or an experiment, which is run under every algorithm; without one the
    algorithms are compared on non-IID digits. All runs of a seed have the same clients, initial
    weights, cohorts and minibatches. Ctrl-C, a crash or a kill loses at most the rounds since the last checkpoint:
    the same command with **--out DIR** goes on, and skips what is finished. Ends with results.csv (a line a run),
    summary.md (means over seeds, paired comparisons) and report.html in DIR.

    **fedopt study --dry-run** shows what a study would run; `fedopt list studies` names those that are shipped.
    """
    name, asked = read_study(file, overrides or [], seeds)
    if dry:
        _tell_runs(asked)
        return
    out = out or Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-study-{name}"
    console, stderr = Console(quiet=quiet), Console(stderr=True, quiet=quiet)
    console.print(asked.title or name, style="bold", highlight=False, soft_wrap=True)
    how = f"go on with: fedopt study {'' if file is None else f'{file} '}--out {out}, and the same options"
    try:
        outcome = conduct(asked, name, out, jobs or cores(), retry, display(stderr))
        if outcome.interrupted:
            raise Interrupted(f"stopped; {how}")
        results = read_results([out])
        with storing(out):
            replace_file(out / "results.csv", results_csv(results).encode())
            replace_file(out / "summary.md", summary_md(results).encode())
            replace_file(out / "report.html", page(results).encode())
    except NotStored as error:
        raise NotStored(error.reason, how) from error
    console.print(table(results))
    for pair in paired(results):
        where = f"{pair.where}: " if pair.where else ""
        line = f"{where}{pair.difference}, seed by seed: {pair.each} points ({pair.spread})"
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"results in {out}: report.html, summary.md, results.csv", highlight=False, soft_wrap=True)
    _tell_failures(outcome)


def table(results: Results) -> Table:
    """Mean ± standard deviation over seeds; the best of each comparison in bold."""
    figures, wins = [column for column in columns(results) if column.brief], is_winner(results)
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for axis in results.axes:
        shown.add_column(axis_title(axis))
    for column in figures:
        shown.add_column(column.title, justify="right", no_wrap=True)
    for group in results.groups:
        cells = [*group.labels.values(), *(column.told(group) for column in figures)]
        shown.add_row(*cells, style="bold" if wins(group) else "")
    return shown


def _tell_failures(outcome: Outcome) -> None:
    """Runs that diverged are results, and said; SomeFailed, with the reasons, for others that did not finish."""
    diverged = [name for name, reason in outcome.failures.items() if reason.startswith(DIVERGED)]
    if diverged:
        console = Console(stderr=True)
        console.print(f"{len(diverged)} runs diverged: {', '.join(diverged)}", highlight=False, soft_wrap=True)
    failed = [f"{name}: {outcome.failures[name].splitlines()[0]}" for name in outcome.failures if name not in diverged]
    failed += [f"{name}: no run of its search was finished" for name in outcome.unchosen]
    if failed:
        more = [f"and {len(failed) - 10} more"] if len(failed) > 10 else []
        heading = f"{len(failed)} runs did not finish (failure.txt in each says why; --retry repeats them):"
        raise SomeFailed("\n".join([heading, *failed[:10], *more]))


def _tell_runs(asked: Study) -> None:
    points = combinations(asked)
    searches = [search_runs(asked, asked.search, point) for point in points] if asked.search else []
    runs: list[PlannedRun] = [*itertools.chain.from_iterable(searches), *planned_runs(asked, points)]
    for run in runs:
        print(run.name)
    rounds = sum(run.experiment.run.rounds for run in runs)
    Console(stderr=True).print(f"{len(runs)} runs, {rounds:,} rounds", highlight=False)
