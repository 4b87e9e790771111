"""The wheel: built from the sources, installed where nothing else of this repository is, it runs the digits."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.commands import fedopt

ROOT = Path(__file__).parents[1]
PACKAGES = ("fedopt", "clients", "server", "simulations")


def test_the_version_is_printed_without_importing_torch() -> None:
    done = fedopt("--version")
    assert (done.returncode, done.stdout.strip()) == (0, f"fedopt {version('fedopt')}")


@pytest.mark.parametrize(("words", "expected"), [("fedopt r", "run report"), ("fedopt ke", "keys")])
def test_the_shell_completes_commands(words: str, expected: str) -> None:
    asked = {"_FEDOPT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": "1"}
    script = Path(sys.executable).with_name("fedopt")
    done = subprocess.run([script], env=os.environ | asked, capture_output=True, text=True)
    assert done.stdout.split() == expected.split(), done.stderr


@pytest.mark.slow
def test_a_wheel_runs_the_digits_where_there_is_no_compiler(tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    for part in (*PACKAGES, "pyproject.toml", "README.md", "LICENSE"):
        copy = partial(shutil.copytree, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        sources.mkdir(exist_ok=True)
        (copy if part in PACKAGES else shutil.copy)(ROOT / part, sources / part)
    # Without PYTHONPATH, which may name a checkout, and with byte-compiling, whose absence the build warns of.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    built = run(sys.executable, "-m", "build", "--outdir", tmp_path / "dist", sources, env=plain)
    assert "warning" not in (built.stdout + built.stderr).lower(), built.stdout
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    assert wheel.name == "fedopt-0.1.0-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {*PACKAGES, "fedopt-0.1.0.dist-info"}
    for template in (ROOT / "fedopt" / "templates").glob("*/*.*"):
        assert template.relative_to(ROOT).as_posix() in names
    assert {"fedopt/py.typed", "simulations/studies/mnist-alpha.toml"} <= set(names)
    pages = [file for ending in ("html", "css", "js") for file in (ROOT / "simulations").rglob(f"*.{ending}")]
    assert {file.relative_to(ROOT).as_posix() for file in pages} <= set(names)
    assert len(pages) > 10

    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "fresh")
    python = tmp_path / "fresh" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel, env=plain)
    # The dependencies are those of this environment, whose editable fedopt is not seen through a .pth file.
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip())
    (site / "zz-borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    nothing = tmp_path / "empty"
    nothing.mkdir()
    env = {"PATH": str(python.parent), "HOME": str(nothing), "CC": "/bin/false", "PYTHONNOUSERSITE": "1"}
    location = run(python, "-c", "import fedopt; print(fedopt.__file__)", env=env, cwd=nothing).stdout.strip()
    assert Path(location).is_relative_to(tmp_path / "fresh")
    command = python.with_name("fedopt")
    done = run(command, "run", "--set", "run.rounds=20", "--out", "first", "--json", env=env, cwd=nothing)
    assert json.loads(done.stdout)["final"]["test_accuracy"] > 0.7
    run(command, "report", "first", env=env, cwd=nothing)
    assert (nothing / "first" / "report.html").is_file()


def run(
    *command: object, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(part) for part in command], env=env, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done
