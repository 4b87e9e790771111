"""`fedopt report`: an HTML page, and figures, about runs and studies.

Imports that load torch are inside the functions, so that `--help` does not wait for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fedopt.commands.options import command
from fedopt.errors import InvalidExperiment
from fedopt.storage.files import replace_file
from fedopt.text import count

if TYPE_CHECKING:
    from simulations.results import Results

app = command("report")


@app.command(epilog="Example:  fedopt report runs/alpha --figures figures")
def report(
    directories: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Runs, studies, or folders that hold them.")
    ],
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="The page's file. [default: report.html in the first DIR]"),
    ] = None,
    figures: Annotated[
        Path | None, typer.Option("--figures", metavar="DIR", help="Also write SVG and PDF figures for a paper.")
    ] = None,
) -> None:
    """Make one HTML page about runs: tables over seeds, curves, client drift, partitions, clients and classes.

    The page is one file that opens in any browser from disk, without a network. Runs of a study are grouped by its
    axes, other runs by the keys and data in which they differ. Seeds are averaged, and a repeated run counts once.
    Runs that are unfinished or cannot be read are named on the page.
    """
    from simulations.report.figures import write_figures
    from simulations.results import read_results

    results = read_results(directories)
    file = html or directories[0] / "report.html"
    write_page(results, file)
    console = Console(stderr=True)
    for sentence in results.warnings[:20]:
        console.print(f"note: {sentence}", style="yellow", highlight=False, soft_wrap=True, markup=False)
    print(f"report in {file}")
    if figures is not None:
        written = write_figures(results, figures)
        print(f"{count(len(written), 'figure')} in {figures}, as SVG and PDF")


def write_page(results: Results, file: Path) -> None:
    """Writes the page. Raises InvalidExperiment if that fails."""
    from simulations.report.page import page

    try:
        replace_file(file, page(results).encode())
    except OSError as error:
        raise InvalidExperiment(f"{file} cannot be written: {error.strerror}") from error
