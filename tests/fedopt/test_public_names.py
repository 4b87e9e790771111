"""What `import fedopt` offers: complete, documented, and loaded when it is asked for."""

from __future__ import annotations

import doctest
import importlib
import inspect
import subprocess
import sys

import pytest

import fedopt

MODULES = (
    "fedopt",
    "fedopt.errors",
    "fedopt.experiment.experiment",
    "fedopt.runs.api",
    "fedopt.runs.history",
    "fedopt.runs.load",
    "fedopt.runs.stepping",
    "fedopt.runs.view",
)


def test_every_public_name_is_there_and_no_other() -> None:
    assert sorted(fedopt.__all__) == sorted(fedopt._PLACES.keys() | fedopt._MODULES)
    assert set(fedopt.__all__) <= set(dir(fedopt))
    for name in fedopt.__all__:
        assert getattr(fedopt, name) is not None
    with pytest.raises(AttributeError, match="module 'fedopt' has no attribute 'runn'"):
        fedopt.runn  # noqa: B018


@pytest.mark.parametrize("name", fedopt.__all__)
def test_help_says_what_it_is(name: str) -> None:
    thing = getattr(fedopt, name)
    assert inspect.getdoc(thing), name
    for method, value in vars(thing).items() if inspect.isclass(thing) else ():
        if inspect.isfunction(value) and not method.startswith("_") and value.__module__.startswith("fedopt."):
            inherited = any(hasattr(base, method) for base in thing.__mro__[1:])
            assert inherited or inspect.getdoc(value), f"{name}.{method}"


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_hold(module: str) -> None:
    found = doctest.testmod(importlib.import_module(module), optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    assert found.failed == 0


def test_importing_it_is_light() -> None:
    code = "import fedopt, sys; assert not {'torch', 'numpy', 'pydantic', 'flwr'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
