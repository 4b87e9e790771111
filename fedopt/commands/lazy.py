"""Groups of subcommands that are imported only when called, so that `--help` loads none of them and no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import click
import typer
from typer.core import TyperGroup

from fedopt.registry import load_attribute, nearest


class Entry(NamedTuple):
    place: str
    help: str


class LazyCommand(click.Command):
    """A subcommand that is imported when it is called."""

    def __init__(self, name: str, entry: Entry) -> None:
        super().__init__(name, help=entry.help)
        self._place = entry.place
        self.rich_help_panel = "Commands"

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **more: Any) -> click.Context:
        app = load_attribute(self._place)
        assert isinstance(app, typer.Typer)
        return typer.main.get_command(app).make_context(info_name, args, *rest, **more)


def lazy_group(name: str, commands: Mapping[str, Entry]) -> typer.Typer:
    """An app with these subcommands. The caller adds the callback, whose docstring is the help text."""

    class LazyGroup(TyperGroup):
        def list_commands(self, ctx: click.Context) -> list[str]:
            return list(commands)

        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
            if cmd_name not in commands:
                ctx.fail(f"unknown command {cmd_name!r}; {nearest(cmd_name, commands)}")
            return LazyCommand(cmd_name, commands[cmd_name])

    return typer.Typer(
        name=name,
        cls=LazyGroup,
        no_args_is_help=True,
        add_completion=name == "fedopt",  # --install-completion and --show-completion belong to the command itself
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode="markdown",
        pretty_exceptions_show_locals=False,  # they may hold keys, and fill pages
    )
