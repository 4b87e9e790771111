"""Three files import Flower's internals: each name exists, no other file imports any, and the version is checked."""

from __future__ import annotations

import ast
import importlib
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from fedopt.flower_version import BELOW, OLDEST, UnsupportedFlower, flower_imports

ROOT = Path(__file__).parents[2]
PUBLIC = {"flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.simulation"}
INTERNALS = [ROOT / folder / "flower_internals.py" for folder in ("server", "clients/deployed", "fedopt/flower")]
PACKAGES = ("fedopt", "clients", "server", "simulations")


def flower_names(file: Path) -> list[tuple[str, str]]:
    """Module and name of each import from Flower, anywhere in the file; a name of "" for a whole module."""
    found: list[tuple[str, str]] = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names if alias.name.partition(".")[0] == "flwr"]
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "flwr":
            found += [(node.module, alias.name) for alias in node.names]
    return found


@pytest.mark.parametrize(
    ("module", "name"), sorted({imported for file in INTERNALS for imported in flower_names(file)})
)
def test_flower_has_what_we_import(module: str, name: str) -> None:
    assert hasattr(importlib.import_module(module), name)


@pytest.mark.parametrize("file", INTERNALS, ids=lambda file: file.parent.name)
def test_every_internal_name_is_exported(file: Path) -> None:
    module = importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
    assert sorted(module.__all__) == sorted(name for _, name in flower_names(file))


def test_no_other_file_imports_internals_of_flower() -> None:
    others = {
        (str(file.relative_to(ROOT)), module)
        for package in PACKAGES
        for file in (ROOT / package).rglob("*.py")
        if file not in INTERNALS
        for module, _ in flower_names(file)
        if module not in PUBLIC
    }
    assert not others


@pytest.mark.parametrize("version", ["1.38.9", "1.43.0", "2.0.0"])
def test_an_unsupported_version_is_refused_in_a_sentence(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: version)
    with pytest.raises(UnsupportedFlower) as refusal, flower_imports():
        raise AssertionError("nothing of it is imported")
    assert str(refusal.value) == (
        f"fedopt does not support the installed Flower {version}; "
        "install a supported version: pip install 'flwr>=1.39,<1.43'"
    )


def test_a_missing_name_is_reported_in_a_sentence() -> None:
    sentence = r"lacks what fedopt needs \(cannot import name 'NO_SUCH'.*pip install"
    with pytest.raises(UnsupportedFlower, match=sentence), flower_imports():
        from flwr.common.constant import NO_SUCH  # type: ignore[attr-defined]  # noqa: F401


def test_pip_installs_what_is_supported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = f">={'.'.join(map(str, OLDEST))},<{'.'.join(map(str, BELOW))}"
    assert f"flwr{bounds}" in project["dependencies"]
    assert project["optional-dependencies"]["ray"] == [f"flwr[simulation]{bounds}"]
