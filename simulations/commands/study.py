"""`fedopt study`: a grid of experiments over seeds, its tables and its report.

Imports that load torch are inside the functions, so that `--help` does not wait for it.
"""

from __future__ import annotations

import shlex
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fedopt.commands.options import LogFile, Overrides, Progress, ProgressStyle, Quiet, Track, Verbose, command
from fedopt.commands.output import set_up_output
from fedopt.commands.tables import Column, show
from fedopt.errors import FedoptError, NotStored
from fedopt.text import count

if TYPE_CHECKING:
    from simulations.results import Results
    from simulations.study.checks import Checked
    from simulations.study.conduct import Outcome

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
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", min=1, metavar="N", help="Number of seeds, from 0 or the file's seed on."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="The study's directory, new or to continue. [default: in runs/]"),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, metavar="N", help="Worker processes. [default: one per core]"),
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Repeat runs that failed before.")] = False,
    dry: Annotated[bool, typer.Option("--dry-run", help="List the runs without running them.")] = False,
    track: Track = None,
    progress: Progress = ProgressStyle.AUTO,
    quiet: Quiet = False,
    verbose: Verbose = 0,
    log_file: LogFile = None,
) -> None:
    """Run a study: every combination of a grid of experiments with every seed, in parallel.

    STUDY is a study's file, the name of a shipped study, or an experiment file, whose algorithm is then compared with
    FedAvg. The default compares FedAvg and SCAFFOLD on non-IID digits. All runs of a seed have the same clients,
    initial weights, cohorts and minibatches. After Ctrl-C, a crash or a kill, the same command with **--out DIR**
    resumes each run from its last checkpoint and skips finished runs. A study ends with results.csv (a line per run),
    summary.md (means over seeds, paired comparisons) and report.html in DIR.

    **fedopt study --dry-run** lists a study's runs; **fedopt list studies** lists the shipped studies.
    """
    from fedopt.runs.runner import Interrupted
    from fedopt.tracking import trackers
    from simulations.study.checks import checked
    from simulations.study.conduct import conduct
    from simulations.study.display import Display
    from simulations.study.file import read_study
    from simulations.study.tables import write_results
    from simulations.study.workers import cores

    name, requested = read_study(file, overrides or [], seeds)
    plan = checked(requested)
    trackers(track or ())  # a missing package is reported before anything is run
    output, console = set_up_output(quiet, verbose, log_file, progress), Console(quiet=quiet)
    for note in plan.notes:
        output.note(note)
    if dry:
        _print_runs(plan)
        return
    out = out or Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-study-{name}"
    console.print(requested.title or name, style="bold", highlight=False, soft_wrap=True)
    again = shlex.join(["fedopt", "study", *([] if file is None else [str(file)]), "--out", str(out)])
    how = f"continue with: {again}, and the same options"
    try:
        outcome = conduct(requested, name, out, jobs or cores(), retry, Display(output), track or ())
        if outcome.interrupted:
            raise Interrupted(f"stopped; {how}")
        results = write_results(out)
    except NotStored as error:
        raise NotStored(error.reason, how) from error
    print_results(console, results)
    console.print(f"results in {out}: report.html, summary.md, results.csv", highlight=False, soft_wrap=True)
    _report_failures(outcome)


def print_results(console: Console, results: Results) -> None:
    """The table, and the differences seed by seed."""
    from simulations.comparison import OF_CLIENTS, compared_accuracy, paired

    print_table(console, results)
    whose = "clients' models, " if compared_accuracy(results) is OF_CLIENTS else ""
    for pair in paired(results):
        where = f"{pair.where}: " if pair.where else ""
        points = " points" if pair.accuracy.scale == 100 else ""
        line = f"{where}{pair.difference}, {whose}seed by seed: {pair.each}{points} ({pair.spread})"
        console.print(line, highlight=False, soft_wrap=True)


def print_table(console: Console, results: Results) -> None:
    """Mean ± standard deviation over seeds; the best of each comparison in bold."""
    from simulations.comparison import columns, compared_accuracy, headers, is_winner, labels

    groups, wins = results.groups, is_winner(results, compared_accuracy(results).of)
    rows = [labels(results, group) for group in groups]
    table = [
        Column(header, [row[place] for row in rows], len({row[place] for row in rows}) > 1, is_figure=False)
        for place, header in enumerate(headers(results))
    ]
    figures = [column for column in columns(results) if column.brief]
    table += [
        Column(figure.title, [figure.text(group) for group in groups], figure is figures[0]) for figure in figures
    ]
    show(console, table, [wins(group) for group in groups], elsewhere="summary.md")


def _report_failures(outcome: Outcome) -> None:
    """Prints the runs that diverged, which is a result; raises SomeFailed with the reasons if others failed."""
    from fedopt.runs.past_runs import DIVERGED

    diverged = [name for name, reason in outcome.failures.items() if reason.startswith(DIVERGED)]
    if diverged:
        console = Console(stderr=True)
        console.print(f"{count(len(diverged), 'run')} diverged: {', '.join(diverged)}", highlight=False, soft_wrap=True)
    failed = [f"{name}: {outcome.failures[name].splitlines()[0]}" for name in outcome.failures if name not in diverged]
    failed += [f"{name}: no run of its search was finished" for name in outcome.unchosen]
    if failed:
        more = [f"and {len(failed) - 10} more"] if len(failed) > 10 else []
        heading = f"{count(len(failed), 'run')} did not finish (failure.txt in each says why; --retry repeats them):"
        raise SomeFailed("\n".join([heading, *failed[:10], *more]))


def _print_runs(plan: Checked) -> None:
    runs = plan.runs if not plan.searches else [*plan.first, *plan.runs]
    for run in runs:
        print(run.name)
    rounds = sum(run.experiment.run.rounds for run in runs)
    Console(stderr=True).print(f"{count(len(runs), 'run')}, {rounds:,} round{'s' * (rounds != 1)}", highlight=False)
