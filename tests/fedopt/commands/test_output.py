"""What a command prints with -q, -v, --log-file and --progress, on a terminal and elsewhere."""

from __future__ import annotations

import io
import logging
import os
import pty
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from fedopt.commands.options import ProgressStyle
from fedopt.commands.output import Output, set_up_output
from fedopt.errors import InvalidExperiment
from fedopt.logs import LOGGERS, log_to, set_up_logging
from tests.commands import environment, fedopt_here


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    before = {name: vars(logging.getLogger(name)).copy() for name in LOGGERS}
    handlers = {name: list(logging.getLogger(name).handlers) for name in LOGGERS}
    yield
    for name in LOGGERS:
        logger = logging.getLogger(name)
        vars(logger).update(before[name])
        logger.handlers = handlers[name]
        logger.setLevel(before[name]["level"])  # clears logging's cache of what is enabled


@pytest.mark.parametrize(
    ("verbosity", "quiet", "lines"),
    [
        (0, False, ["warning: w [b]", "error: e"]),
        (1, False, ["i", "warning: w [b]", "error: e", "warning: a client's"]),
        (2, False, ["d", "i", "warning: w [b]", "error: e", "warning: a client's"]),
        (0, True, ["error: e"]),
    ],
)
def test_the_terminal_shows_what_was_asked_for_and_no_markup(verbosity: int, quiet: bool, lines: list[str]) -> None:
    screen = io.StringIO()
    set_up_logging(Console(file=screen, width=200), verbosity, quiet)
    log = logging.getLogger("fedopt")
    log.debug("d")
    log.info("i")
    log.warning("%s", "w [b]")
    log.error("e")
    log.error("printed by the command itself", extra={"shown": True})
    logging.getLogger("fedopt.server").warning("a client's")
    assert screen.getvalue().splitlines() == lines


def test_a_log_file_has_everything_and_a_server_s_log_leaves_it_in_place(tmp_path: Path) -> None:
    set_up_output(quiet=True, log_file=tmp_path / "all.log")
    log_to(tmp_path / "server.log")
    logging.getLogger("fedopt").debug("a detail")
    logging.getLogger("fedopt.server").warning("two\nlines")
    logging.getLogger("flwr").info("of Flower")
    everything = [line.split(" ", 2)[2] for line in (tmp_path / "all.log").read_text().splitlines()]
    assert everything == ["DEBUG a detail", r"WARNING two\nlines", "INFO of Flower"]
    assert [line.split(" ", 2)[2] for line in (tmp_path / "server.log").read_text().splitlines()] == everything[1:]


def test_a_log_file_that_cannot_be_opened_and_a_contradiction_get_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InvalidExperiment, match=r"--log-file .*gone/l cannot be written: No such file"):
        set_up_output(log_file=tmp_path / "gone" / "l")
    with pytest.raises(InvalidExperiment, match="contradict"):
        set_up_output(quiet=True, verbosity=1)


def test_auto_is_a_bar_only_where_a_person_looks_at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(ours), os.fdopen(theirs, "w") as terminal:
        output = Output(Console(stderr=True))
        monkeypatch.delenv("CI", raising=False)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("FORCE_COLOR", "1")  # means color, not that anybody watches
        monkeypatch.setattr("sys.stderr", io.StringIO())
        assert str(output.progress) == "plain"
        monkeypatch.setattr("sys.stderr", terminal)
        assert str(output.progress) == "bar"
        monkeypatch.setenv("TERM", "dumb")
        assert str(output.progress) == "plain"
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("CI", "true")
        assert str(output.progress) == "plain"
        assert str(Output(Console(), quiet=True, style=ProgressStyle.BAR).progress) == "off"


def test_a_run_s_lines_in_a_pipe_and_in_its_log_file(tmp_path: Path) -> None:
    done = fedopt_here("run", "--set", "run.rounds=40", "--set", "run.workers=1", "--log-file", "l", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\r" not in done.stderr
    assert "\x1b" not in done.stderr
    rounds = [int(found[1]) for line in done.stderr.splitlines() if (found := re.match(r"round (\d+)/40  test", line))]
    assert rounds == list(range(2, 41, 2))
    log = (tmp_path / "l").read_text()
    assert [int(number) for number in re.findall(r"DEBUG round (\d+): training loss", log)] == list(range(1, 41))
    assert "INFO fedavg on digits" in log
    assert "INFO training in 1 process" in log
    assert "INFO results in runs/" in log


def test_progress_off_leaves_the_experiment_and_the_result_and_verbose_adds_rounds(tmp_path: Path) -> None:
    arguments = ["run", "--set", "run.rounds=2", "--set", "run.workers=1"]
    done = fedopt_here(*arguments, "--progress", "off", cwd=tmp_path)
    assert [line.split()[0] for line in done.stderr.splitlines()] == ["fedavg", "test", "results"]
    done = fedopt_here(*arguments, "--progress", "off", "-vv", cwd=tmp_path)
    assert [line for line in done.stderr.splitlines() if line.startswith("round 2: training loss")]
    assert environment()["NO_COLOR"]
