"""Arrows between packages go one way, and what must be light is light."""

from __future__ import annotations

import ast
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ABOVE = {
    "fedopt": {"flwr", "ray", "clients", "server", "simulations"},
    "clients": {"server", "simulations"},
    "server": {"clients", "simulations"},
    "simulations": {"server"},
}

TEMPLATES = ROOT / "fedopt" / "templates"
"""What `fedopt new` copies: files of a user's project, to which none of the rules below applies."""


def files_of(package: str) -> list[Path]:
    """The package's own files."""
    return [file for file in sorted((ROOT / package).rglob("*.py")) if TEMPLATES not in file.parents]


IN_A_FLOWER_APP = ROOT / "fedopt" / "flower"
"""The one folder of fedopt/ that imports Flower: what a Flower App uses, so Flower is loaded already. It belongs to the
method and not to server/ or clients/, because it is a strategy over the algorithms and needs neither."""

LAYERS = [
    {"__init__", "__main__"},
    {"commands"},
    {"tracking"},
    {"runs", "flower"},
    {"wire", "wire_arrays"},
    {"experiment"},
    {"round"},
    {"data", "drift", "channel", "algorithms", "optimizers", "server_optimizers", "schedules", "models"},
    {"vectors", "storage"},
    {
        "registry",
        "explain",
        "section",
        "shadowing",
        "family",
        "composite",
        "hooks",
        "imports",
        "errors",
        "logs",
        "patterns",
        "flower_version",
        "seeding",
        "device",
        "precision",
        "text",
        "addresses",
        "task",
    },
]
"""What is in fedopt/, from the top: a file imports from its own layer and from those below it."""

RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}


def imported(file: Path) -> set[str]:
    """Every module that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("package", ABOVE)
def test_no_package_imports_one_above_it(package: str) -> None:
    for file in files_of(package):
        tops = {name.partition(".")[0] for name in imported(file)}
        above = ABOVE[package] - ({"flwr"} if IN_A_FLOWER_APP in file.parents else set())
        assert not tops & above, file


def test_nothing_else_in_fedopt_imports_what_needs_flower() -> None:
    for file in files_of("fedopt"):
        if IN_A_FLOWER_APP not in file.parents:
            assert not any(_is_of("fedopt.flower", name) for name in imported(file)), file


def test_every_file_of_fedopt_has_a_layer() -> None:
    folders = {path.name for path in (ROOT / "fedopt").iterdir() if any(path.glob("*.py"))}
    assert (folders | {file.stem for file in (ROOT / "fedopt").glob("*.py")}) <= RANK.keys()


def test_no_import_inside_fedopt_goes_back_up() -> None:
    """Strings do not count: a registry may name a file of any layer."""
    upward: list[str] = []
    for file in files_of("fedopt"):
        place = file.relative_to(ROOT / "fedopt")
        rank = RANK[place.parts[0].removesuffix(".py")]
        used = {name.split(".")[1] if "." in name else "__init__" for name in imported(file) if _is_of("fedopt", name)}
        upward += [f"{place} imports {name}" for name in sorted(used & RANK.keys()) if RANK[name] < rank]
    assert upward == []


def _is_of(package: str, name: str) -> bool:
    return name == package or name.startswith(f"{package}.")


PURE = {"all", "any", "callable", "hasattr", "isinstance", "issubclass", "len", "max", "min", "set", "sorted"}
"""Built-in functions that an assert may call: python -O removes asserts, so nothing in one may have an effect."""


@pytest.mark.parametrize("package", ABOVE)
def test_no_assert_has_an_effect(package: str) -> None:
    for file in files_of(package):
        for statement in ast.walk(ast.parse(file.read_text())):
            if not isinstance(statement, ast.Assert):
                continue
            for node in ast.walk(statement.test):
                place = f"{file}:{statement.lineno}"
                assert not isinstance(node, ast.NamedExpr | ast.Await | ast.Yield | ast.YieldFrom), place
                if isinstance(node, ast.Call):
                    assert isinstance(node.func, ast.Name), place
                    assert node.func.id in PURE, place


def test_no_two_files_import_each_other() -> None:
    modules = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
        for package in ABOVE
        for file in files_of(package)
    }
    uses = {name: imported(file) & modules.keys() - {name} for name, file in modules.items()}
    # A file in a package imports that package's __init__; only what an __init__ names itself counts.
    reached: dict[str, set[str]] = {}

    def closure(name: str) -> set[str]:
        if name not in reached:
            reached[name] = set()
            for used in uses[name]:
                reached[name] |= {used} | closure(used)
        return reached[name]

    assert [name for name in modules if name in closure(name)] == []


def test_the_embedded_simulation_loads_neither_flower_nor_ray() -> None:
    code = (
        "import fedopt, simulations, simulations.embedded, sys; fedopt.run; "
        "assert not {'flwr', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_embedded_simulation_runs_where_flower_and_ray_are_not_installed(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["flwr"] = sys.modules["ray"] = sys.modules["grpc"] = None  # importing them fails
import fedopt
history = fedopt.run(fedopt.Experiment(algorithm={"name": "scaffold"}, run={"rounds": 1}), sys.argv[1])
assert history.summary.rounds == 1
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], check=True, cwd=ROOT)


def test_help_answers_at_once_and_without_torch() -> None:
    code = """
import sys
sys.argv = ["fedopt", "--help"]
from fedopt.commands.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code
assert not {"torch", "flwr", "pydantic"} & set(sys.modules)
"""

    def seconds() -> float:
        """Of the CPU: the wall clock would measure what else the machine does."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    assert min(seconds() for _ in range(5)) < 0.5


def test_help_of_every_command_answers_without_torch() -> None:
    code = """
import sys
import time
from fedopt.commands.cli import COMMANDS, main
benchmarks = [["bench", name] for name in ("engine", "scale", "store", "drift", "federation")]
for command in [[name] for name in COMMANDS] + benchmarks:
    before = time.process_time()
    sys.argv = ["fedopt", *command, "--help"]
    try:
        main()
    except SystemExit as end:
        assert not end.code, command
    loaded = {"torch", "numpy", "scipy", "flwr", "grpc", "ray", "pydantic", "matplotlib"} & set(sys.modules)
    assert not loaded, (command, loaded)
    assert time.process_time() - before < 0.5, command
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
