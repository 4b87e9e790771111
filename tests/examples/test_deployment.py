"""The files of examples/deployment and the commands of docs/deployment.md: they parse, and the three terminals run."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest
import yaml  # type: ignore[import-untyped]

import fedopt
from fedopt.experiment.file import read_experiment
from server.keys import make_keys
from tests.commands import environment
from tests.docs.commands import commands_in, parse
from tests.processes import free_port

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "deployment"
PATIENCE = 270.0
"""Seconds within which a process must have ended, even on a busy machine."""

UNITS = sorted(FOLDER.glob("*.service"))


@pytest.mark.parametrize(
    "file",
    [*sorted(FOLDER.glob("*.sh")), *UNITS, FOLDER / "README.md", ROOT / "docs" / "deployment.md"],
    ids=lambda path: path.name,
)
def test_every_fedopt_command_has_options_that_exist(file: Path) -> None:
    text = file.read_text()
    if file.suffix == ".md":  # in a sentence, commands are abridged
        text = "\n".join(
            [*re.findall(r"```sh\n(.*?)```", text, re.DOTALL), *re.findall(r"^    (.*)$", text, re.MULTILINE)]
        )
    commands = commands_in(text)
    assert commands or "ExecStart=/bin/sh /etc/fedopt/server.sh" in text
    for words in commands:
        parse(words)


def test_the_search_for_commands_finds_them_and_a_wrong_option_fails() -> None:
    text = 'exec fedopt server "$experiment" --listen "$listen" \\\n    --keys "$keys"\n`fedopt client --chair 3`'
    assert commands_in(text) == [["server", "0", "--listen", "0", "--keys", "0"], ["client", "--chair", "3"]]
    with pytest.raises(click.NoSuchOption):
        parse(["client", "--chair", "3"])


def test_the_experiment_is_valid() -> None:
    experiment = read_experiment(FOLDER / "experiment.toml", [])
    assert experiment.notes(deployed=True) == []
    assert experiment.cohort_size == experiment.data.clients == 2


def test_the_services_of_the_compose_file_are_commands_of_ours() -> None:
    services = yaml.safe_load((FOLDER / "compose.yaml").read_text())["services"]
    assert set(services) == {"server", "client-0", "client-1"}
    assert services["server"]["entrypoint"][:2] == ["sh", "/deployment/server.sh"]
    for number in (0, 1):
        service = services[f"client-{number}"]
        parsed = parse(shlex.split(service["command"]))
        assert parsed.params["number"] == number
        inside = {volume.split(":")[1] for volume in service["volumes"]}
        assert {str(parsed.params["ca"]), str(parsed.params["key"])} <= inside, "what it reads is mounted"
    for service in services.values():
        assert service["image"] == "fedopt"
        own = [volume.split(":")[0] for volume in service["volumes"] if volume.split(":")[0].endswith((".sh", ".toml"))]
        assert all((FOLDER / file).is_file() for file in own)


def test_the_image_has_what_the_package_is_made_of() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {name.rstrip("*") for name in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    files = {project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml"}
    copied = {line[1:] for line in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"}
    assert copied == packages | files
    assert 'ENTRYPOINT ["fedopt"]' in (FOLDER / "Dockerfile").read_text()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """Where fedopt is installed under /opt; here /bin/true stands there."""
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/fedopt/bin/fedopt", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", *(str(tmp_path / unit.name) for unit in UNITS)],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if "fedopt" in line]
    assert (done.returncode, ours) == (0, [])


@contextmanager
def terminals(folder: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that end with the block."""
    running: list[subprocess.Popen[bytes]] = []
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.deployment
@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGINT])
def test_three_terminals_run_and_a_server_that_was_stopped_goes_on(signal_: signal.Signals, tmp_path: Path) -> None:
    make_keys(tmp_path / "keys", 2, [], 1)
    shutil.copytree(FOLDER, tmp_path / "deployment")
    address = f"127.0.0.1:{free_port()}"
    env = environment() | {"LISTEN": address, "SERVER": address, "PYTHONPATH": str(ROOT)}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    expected = fedopt.run(read_experiment(FOLDER / "experiment.toml", ["run.device=cpu"]), tmp_path / "here")

    with terminals(tmp_path) as running:

        def start(log: str, *words: str) -> subprocess.Popen[bytes]:
            with open(tmp_path / log, "wb") as stream:
                running.append(subprocess.Popen(["sh", *words], cwd=tmp_path, env=env, stdout=stream, stderr=stream))
            return running[-1]

        server = start("server.log", "deployment/server.sh")
        clients = [start(f"client-{number}.log", "deployment/client.sh", str(number)) for number in (0, 1)]
        end = time.monotonic() + PATIENCE
        while "round 3/10" not in (tmp_path / "server.log").read_text():
            assert time.monotonic() < end, (tmp_path / "server.log").read_text()
            time.sleep(0.02)
        server.send_signal(signal_)
        assert server.wait(PATIENCE) == (130 if signal_ == signal.SIGINT else -signal_)
        assert start("again.log", "deployment/server.sh").wait(PATIENCE) == 0, (tmp_path / "again.log").read_text()
        assert [client.wait(PATIENCE) for client in clients] == [0, 0]
        assert start("third.log", "deployment/server.sh").wait(PATIENCE) == 0
    assert "is complete" in (tmp_path / "third.log").read_text()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["rounds"] == 10
    assert summary["final"]["test_accuracy"] == expected.summary.final.test_accuracy
