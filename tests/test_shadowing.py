"""`python -m fedopt` in a folder that holds a server.py or clients/ says so, and never imports them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import environment

ROOT = Path(__file__).parents[1]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "1"]
BOOBY_TRAP = "raise SystemExit('the user\\'s own file was imported')\n"


def run(*command: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """With the checkout on the path behind the current folder, as an installed package is."""
    paths = os.pathsep.join(filter(None, [variables.pop("FIRST", ""), str(ROOT)]))
    env = {**environment(), "PYTHONPATH": paths, **variables}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)


def refused(done: subprocess.CompletedProcess[str], file: Path, name: str) -> bool:
    """Whether it ended with one sentence that names the file, the package and the remedy."""
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("fedopt:")]
    assert f"fedopt: {file} would be imported in place of fedopt's own package {name}; " in line
    assert "Traceback" not in done.stderr.partition("fedopt:")[0]
    return done.returncode != 0


@pytest.mark.parametrize(
    ("shadow", "name", "command"),
    [
        ("server.py", "server", ["server", "--help"]),
        ("clients/__init__.py", "clients", ["client", "--help"]),
        ("simulations.py", "simulations", ["--help"]),
    ],
)
def test_a_file_in_the_current_folder_is_named(tmp_path: Path, shadow: str, name: str, command: list[str]) -> None:
    file = tmp_path / shadow
    file.parent.mkdir(exist_ok=True)
    file.write_text(BOOBY_TRAP)
    done = run(sys.executable, "-m", "fedopt", *command, cwd=tmp_path)
    assert refused(done, tmp_path / Path(shadow).parts[0], name)
    assert (done.returncode, done.stdout) == (2, "")
    assert "run it from another folder" in done.stderr


def test_torchrun_names_it_too(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(BOOBY_TRAP)
    assert refused(run(*TORCHRUN, "-m", "fedopt", "--help", cwd=tmp_path), tmp_path / "server.py", "server")


@pytest.mark.slow
def test_the_remedy_for_torchrun_works(tmp_path: Path) -> None:
    (tmp_path / "server.py").write_text(BOOBY_TRAP)
    script = tmp_path / "bin" / "fedopt"
    script.parent.mkdir()
    script.write_text(f"#!{sys.executable}\nfrom fedopt.__main__ import main\nmain()\n")  # as pip installs it
    script.chmod(0o755)
    done = run(*TORCHRUN, "--no-python", str(script), "server", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_a_file_elsewhere_on_the_path_is_named_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "server.py").write_text(BOOBY_TRAP)
    done = run(sys.executable, "-m", "fedopt", "--help", cwd=tmp_path, FIRST=str(tmp_path / "mine"))
    assert refused(done, tmp_path / "mine" / "server.py", "server")
    assert f"take {tmp_path / 'mine'} off PYTHONPATH" in done.stderr


def test_files_of_other_names_are_none_of_its_business(tmp_path: Path) -> None:
    (tmp_path / "servers.py").write_text(BOOBY_TRAP)
    (tmp_path / "clients").mkdir()  # a folder of data, in front of a package with an __init__.py
    assert run(sys.executable, "-m", "fedopt", "--help", cwd=tmp_path).returncode == 0


def test_a_script_beside_such_a_file_is_told_in_one_sentence(tmp_path: Path) -> None:
    """A script's folder is first on its path, as a notebook's is."""
    (tmp_path / "clients.py").write_text(BOOBY_TRAP)
    script = tmp_path / "train.py"
    script.write_text("import fedopt\nfedopt.run(fedopt.Experiment(run={'rounds': 1}))\n")
    done = run(sys.executable, str(script), cwd=tmp_path)
    last = done.stderr.strip().splitlines()[-1]
    assert last.endswith(
        f"InvalidExperiment: {tmp_path / 'clients.py'} would be imported in place of fedopt's own package clients; "
        "rename it, or run from another folder"
    )
    assert done.returncode == 1
