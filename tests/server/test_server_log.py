"""What the server's log says of an end, and what a crash prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedopt.commands.cli import fedopt
from fedopt.commands.options import command
from fedopt.errors import RunStopped
from server.server_log import journal
from tests.processes import apart


@apart
def test_how_a_server_ended_is_the_last_entry_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    with pytest.raises(ZeroDivisionError), journal(log):
        raise ZeroDivisionError("a fault of ours")
    assert "CRITICAL crashed: ZeroDivisionError: a fault of ours" in log.read_text()
    with pytest.raises(RunStopped), journal(log):
        raise RunStopped("too few clients")
    assert log.read_text().splitlines()[-1].endswith("ERROR ended: too few clients")
    with pytest.raises(KeyboardInterrupt), journal(log):
        raise KeyboardInterrupt
    assert log.read_text().splitlines()[-1].endswith("WARNING stopped by Ctrl-C")


def test_no_command_prints_locals_when_it_crashes() -> None:
    assert not fedopt.pretty_exceptions_show_locals
    assert not command("any").pretty_exceptions_show_locals
