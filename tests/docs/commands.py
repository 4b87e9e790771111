"""The `fedopt` commands in a text, and what the real command line makes of them without running them."""

from __future__ import annotations

import re
import shlex

import click

from fedopt.commands.cli import COMMANDS
from fedopt.commands.lazy import LazyCommand

WITHOUT_GROUPS = [name for name in COMMANDS if name not in ("bench", "list")]

COMMAND = re.compile(rf"(?:^|[\s;&/`])(fedopt (?:{'|'.join(WITHOUT_GROUPS)})\b[^\n`#&;|)]*)")


def commands_in(text: str) -> list[list[str]]:
    """The words of every `fedopt COMMAND ...` in a text, with shell variables replaced by 0."""
    joined = re.sub(r"\\\n\s*", "", text)
    found = [re.sub(r"\$\{?\w+(:-[^}]*\})?|\$\([^)]*\)|%i", "0", line) for line in COMMAND.findall(joined)]
    return [shlex.split(line)[1:] for line in found]


def parse(words: list[str]) -> click.Context:
    """Raises click.UsageError for an option that the command does not have."""
    return LazyCommand(words[0], COMMANDS[words[0]]).make_context(words[0], words[1:])
