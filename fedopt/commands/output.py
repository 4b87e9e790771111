"""Where a command prints, and how much: the options -q, -v, --log-file and --progress."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from fedopt.commands.options import ProgressStyle
from fedopt.errors import InvalidExperiment
from fedopt.logs import SHOWN, is_watched, set_up_logging

log = logging.getLogger("fedopt")


@dataclass(frozen=True)
class Output:
    """Standard error, as a command uses it."""

    console: Console
    quiet: bool = False
    style: ProgressStyle = ProgressStyle.AUTO

    @property
    def progress(self) -> ProgressStyle:
        """The style in which progress is shown: BAR, PLAIN or OFF."""
        if self.quiet:
            return ProgressStyle.OFF
        if self.style is not ProgressStyle.AUTO:
            return self.style
        return ProgressStyle.BAR if is_watched() else ProgressStyle.PLAIN

    def say(self, line: str) -> None:
        """Prints a line unless -q is given, and logs it."""
        log.info("%s", line, extra=SHOWN)
        if not self.quiet:
            self.console.print(line, highlight=False, soft_wrap=True, markup=False)

    def note(self, sentence: str) -> None:
        """Prints a note about what was asked for unless -q is given, and logs it."""
        log.info("note: %s", sentence, extra=SHOWN)
        if not self.quiet:
            self.console.print(f"note: {sentence}", style="yellow", highlight=False, soft_wrap=True, markup=False)


def set_up_output(
    quiet: bool = False,
    verbosity: int = 0,
    log_file: Path | None = None,
    style: ProgressStyle = ProgressStyle.AUTO,
) -> Output:
    """Sets logging up for this command; InvalidExperiment if the log file cannot be opened."""
    if quiet and verbosity:
        raise InvalidExperiment("--quiet and --verbose contradict each other; give one of them")
    output = Output(Console(stderr=True), quiet, style)
    try:
        set_up_logging(output.console, verbosity, quiet, log_file)
    except OSError as error:
        raise InvalidExperiment(f"--log-file {log_file} cannot be written: {error.strerror}") from error
    return output
