"""The `fedopt` command: a lazy table of subcommands. `fedopt --help` imports none of them, nor torch."""

from __future__ import annotations

import sys
from typing import Annotated

import click
import typer

from fedopt.commands.lazy import Entry, lazy_group
from fedopt.commands.terminal import replace_unencodable_characters
from fedopt.errors import FedoptError
from fedopt.storage.files import NO_ROOM

COMMANDS = {
    "run": Entry("simulations.commands.run:app", "Run one experiment as virtual clients on this machine."),
    "server": Entry("server.commands.server:app", "Serve a federation that clients on other machines join over gRPC."),
    "client": Entry("clients.commands.client:app", "Take part in a federation with this machine's data."),
    "federation": Entry("server.commands.federation:app", "Run a server and its clients, all on this machine."),
    "keys": Entry("server.commands.keys:app", "Make certificates and keys for a federation."),
    "study": Entry("simulations.commands.study:app", "Run a grid of experiments over seeds; ends in a report."),
    "report": Entry("simulations.commands.report:app", "Make an HTML page and figures from runs and studies."),
    "watch": Entry("simulations.commands.watch:app", "Plot a run's curves in the terminal while it runs."),
    "analyze": Entry("fedopt.commands.analyze:app", "Analyze a run: sharpness, loss landscapes, clients' gradients."),
    "demo": Entry("fedopt.commands.demo:app", "See what an optimizer does, on problems whose answer is known."),
    "partition": Entry("fedopt.commands.partition:app", "Show how an experiment spreads its data over clients."),
    "export": Entry("fedopt.commands.export:app", "Write the final model of a run as an ONNX file."),
    "bench": Entry("fedopt.commands.bench:app", "Measure speed: virtual clients, memory, a deployed federation."),
    "new": Entry("fedopt.commands.new:app", "Write a small project to start from, or a Flower App."),
    "list": Entry("fedopt.commands.names:app", "List the names that an experiment may use, and the measures of a run."),
}


STOPPED = 130
"""Exit status of a command that Ctrl-C ended."""

fedopt = lazy_group("fedopt", COMMANDS)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"fedopt {version('fedopt')}")
        raise typer.Exit


@fedopt.callback()
def _root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Federated optimization that people can trust and that runs fast.

    **fedopt run** runs FedAvg on non-IID digits, offline, in a second;
    **fedopt run --set algorithm.name=scaffold** runs SCAFFOLD on the same clients.
    """


def _with_the_key(error: click.NoSuchOption) -> click.NoSuchOption:
    """Where the unknown option is called like a key of an experiment, `--rounds`, proposes `--set run.rounds=...`."""
    from fedopt.experiment.experiment import meant_key  # here, because it loads torch

    key = meant_key("", error.option_name.lstrip("-").replace("-", "_"))
    if key is None:
        return error
    name, proposed = error.option_name, f"--set {key.partition(' ')[0]}=..."
    return click.NoSuchOption(name, f"No such option {name!r}. Did you mean {proposed!r}?", ctx=error.ctx)


def main() -> None:
    """Runs the command. A user's mistake ends in one sentence and its exit status, not in a traceback."""
    replace_unencodable_characters()
    try:
        status = fedopt(standalone_mode=False)
    except FedoptError as error:
        for sentence in str(error).splitlines():
            print(f"fedopt: {sentence}", file=sys.stderr)
        sys.exit(error.exit_status)
    except click.NoSuchOption as error:
        _with_the_key(error).show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        print("fedopt: stopped", file=sys.stderr)
        sys.exit(STOPPED)
    except BrokenPipeError:  # the reader of our output, for example `head`, has ended
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        place = f"{error.filename} cannot be written" if error.filename else "a file cannot be written"
        print(f"fedopt: {place}: {error.strerror}", file=sys.stderr)
        sys.exit(1)
    if status == STOPPED:  # typer has caught the Ctrl-C and printed nothing
        print("fedopt: stopped", file=sys.stderr)
    sys.exit(status if isinstance(status, int) else 0)
