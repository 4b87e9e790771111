"""The `fedopt` command: a lazy table of subcommands. `fedopt --help` imports none of them, nor torch."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import click
import typer
from typer.core import TyperGroup

from fedopt.errors import FedoptError
from fedopt.registry import load_attribute, nearest


class Entry(NamedTuple):
    place: str
    help: str


COMMANDS = {
    "run": Entry("simulations.commands.run:app", "Run one experiment as virtual clients on this machine."),
    "server": Entry("server.commands.server:app", "Serve a federation: clients join over gRPC, wherever they are."),
    "client": Entry("clients.commands.client:app", "Take part in a federation, with the data of this machine."),
    "federation": Entry("server.commands.federation:app", "A server and its clients, all on this machine."),
    "keys": Entry("server.commands.keys:app", "Make certificates and keys for a federation."),
    "study": Entry("simulations.commands.study:app", "FedAvg against SCAFFOLD on non-IID digits, over seeds."),
    "partition": Entry("fedopt.commands.partition:app", "Show how an experiment spreads its data over clients."),
    "bench": Entry("simulations.commands.bench:app", "Measure this engine against the plain training loop."),
    "list": Entry("fedopt.commands.names:app", "List the names an experiment may use."),
}


class LazyCommand(click.Command):
    """Stands for a subcommand in the table; the subcommand is imported when it is called."""

    def __init__(self, name: str, entry: Entry) -> None:
        super().__init__(name, help=entry.help)
        self._place = entry.place
        self.rich_help_panel = "Commands"

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **more: Any) -> click.Context:
        app = load_attribute(self._place)
        assert isinstance(app, typer.Typer)
        return typer.main.get_command(app).make_context(info_name, args, *rest, **more)


class LazyGroup(TyperGroup):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            ctx.fail(f"unknown command {cmd_name!r}; {nearest(cmd_name, COMMANDS)}")
        return LazyCommand(cmd_name, COMMANDS[cmd_name])


fedopt = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
)


@fedopt.callback()
def _root() -> None:
    """Federated optimisation that people can trust and that runs fast.

    **fedopt run** runs FedAvg on non-IID digits, offline, in a second;
    **fedopt run --set algorithm.name=scaffold** runs SCAFFOLD on the same clients.
    """


def main() -> None:
    """Runs the command; a user's mistake ends in its sentence and exit status, never in a traceback."""
    try:
        status = fedopt(standalone_mode=False)
    except FedoptError as error:
        for sentence in str(error).splitlines():
            print(f"fedopt: {sentence}", file=sys.stderr)
        sys.exit(error.exit_status)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        print("fedopt: stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output, head(1) say, has gone
        sys.stderr.close()
        sys.exit(1)
    sys.exit(status if isinstance(status, int) else 0)
