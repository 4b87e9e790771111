"""Code from outside: found by name, as an object and as an installed plugin, and only where it is allowed."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
from torch import Tensor, nn

import fedopt
from fedopt.algorithms import ALGORITHMS
from fedopt.algorithms.fedavg import FedAvg
from fedopt.data.partitions.base import Partition, TrainingSet
from fedopt.data.sources.npz import Npz
from fedopt.errors import InvalidExperiment
from fedopt.experiment.file import read_experiment, to_toml
from fedopt.family import outside_names
from fedopt.imports import allowing, load_outside
from fedopt.models.base import ModelFamily, Shape
from fedopt.models.custom import CustomModel
from fedopt.registry import Registry
from tests.commands import fedopt as command
from tests.commands import fedopt_anew

HERE = __name__
ROOT = Path(__file__).parents[2]


class Halved(FedAvg):
    """FedAvg that moves the server half as far."""

    factor: float = 0.5


class Alternating(Partition):
    """Sample k goes to client k modulo `every`, or to the last."""

    every: int = 3

    def draw(self, samples: TrainingSet, clients: int, rng: np.random.Generator) -> list[np.ndarray]:
        owners = np.minimum(np.arange(len(samples.labels)) % self.every, clients - 1)
        return [np.flatnonzero(owners == client) for client in range(clients)]


class Linear(ModelFamily):
    bias: bool = True

    def build(self, sample_shape: Shape, classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, classes, bias=self.bias))


def factory(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))


class Doubling(nn.Module):
    """A torch module, which is a factory of itself."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def small(**sections: object) -> fedopt.Experiment:
    settings = {"data": {"clients": 3}, "local": {"steps": 2}, "run": {"rounds": 1, "workers": 1}}
    return fedopt.Experiment(**{**settings, **sections})


def test_a_class_is_named_in_toml_and_given_as_an_object_in_python() -> None:
    named = small(
        algorithm={"name": f"{HERE}:Halved", "factor": 0.25, "server_lr": 0.5},
        data={"clients": 3, "partition": f"{HERE}:Alternating", "every": 2},
        model={"name": f"{HERE}:Linear", "bias": False},
    )
    objects = small(
        algorithm=Halved(factor=0.25, server_lr=0.5),
        data={"clients": 3, "partition": Alternating(every=2)},
        model=Linear(bias=False),
    )
    assert isinstance(named.algorithm, Halved)
    assert isinstance(named.data.partition, Alternating)
    assert isinstance(named.model, Linear)
    assert named == objects
    assert to_toml(named) == to_toml(objects)
    assert fedopt.Experiment(**tomllib.loads(to_toml(objects))) == objects
    assert outside_names(objects) == {f"{HERE}:Halved", f"{HERE}:Alternating", f"{HERE}:Linear"}
    assert outside_names(small()) == set()


def test_an_own_partition_divides_the_data_of_a_run(tmp_path: Path) -> None:
    experiment = small(data={"clients": 3, "partition": Alternating()}, model=Linear(), algorithm=Halved())
    fedopt.run(experiment, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "partition.json").read_text())["sizes"] == [479, 479, 479]
    resumed = fedopt.resume(tmp_path / "run", ["run.rounds=2"])
    assert resumed.experiment.algorithm == experiment.algorithm


def test_a_source_is_given_as_an_object(tmp_path: Path) -> None:
    given = small(data={"source": Npz(path=tmp_path / "own.npz"), "clients": 2})
    assert given == small(data={"name": "npz", "path": str(tmp_path / "own.npz"), "clients": 2})
    assert given.data.source.title == "own.npz"


OWN = f"""
[data]
partition = "{HERE}:Alternating"
every = 2
clients = 3
[algorithm]
name = "{HERE}:Halved"
factor = 0.25
server_lr = 0.5
[model]
name = "{HERE}:factory"
anything = 3
"""


def test_an_override_displaces_an_own_member_with_its_keys(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(OWN)
    file = tmp_path / "own.toml"
    assert read_experiment(file, ["data.partition=iid"]).data.model_dump()["partition"] == "iid"
    assert read_experiment(file, ["data.partition=iid"]).notes() == []
    assert read_experiment(file, ["data.every=3"]).data.partition == Alternating(every=3)
    assert read_experiment(file, ["algorithm.name=fedavg"]).algorithm == FedAvg(server_lr=0.5)
    other = read_experiment(file, [f"model.name={HERE}:Doubling"]).model
    assert (other.name, other.model_extra) == (f"{HERE}:Doubling", {"anything": 3})  # any factory may take any key
    assert read_experiment(file, [f"model.name={HERE}:Linear"]).model == Linear()
    mlp = read_experiment(file, ["model.name=mlp", "algorithm.name=scaffold", "algorithm.variant=full-gradient"])
    assert (mlp.model.name, mlp.algorithm.name) == ("mlp", "scaffold")
    with pytest.raises(InvalidExperiment, match=r"^data\.partition: unknown partition 'idd'; did you mean iid"):
        read_experiment(file, ["data.partition=idd"])


@pytest.mark.parametrize("name", ["factory", "Doubling"])
def test_a_model_s_name_from_outside_that_is_no_model_family_is_a_factory(name: str) -> None:
    model = small(model={"name": f"{HERE}:{name}", "anything": 3}).model
    assert isinstance(model, CustomModel)
    assert (model.name, model.model_extra) == (f"{HERE}:{name}", {"anything": 3})


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (f"algorithm.name={HERE}:Linear", "is no algorithm: it must be a class that derives from fedopt.algorithms.b"),
        (f"algorithm.name={HERE}:factory", "is no algorithm: it must be a class"),
        (f"algorithm.name={HERE}:Gone", "cannot be imported: module"),
        ("algorithm.name=no_such_module:Gone", "cannot be imported: No module named 'no_such_module'"),
        (f"data.name={HERE}:Alternating", "is no data set: it must be a class that derives from fedopt.data.sources"),
        (f"data.partition={HERE}:Halved", "is no partition: it must be a class that derives from fedopt.data.partit"),
    ],
)
def test_what_is_no_member_is_refused_in_a_sentence(override: str, told: str) -> None:
    key, _, name = override.partition("=")
    with pytest.raises(InvalidExperiment) as caught:
        read_experiment(None, [override])
    assert str(caught.value).startswith(f"{key}: {name} {told}")


def test_a_module_that_fails_is_named_with_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fails_when_imported.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    told = r"^algorithm\.name: fails_when_imported:A cannot be imported: ZeroDivisionError: division by zero$"
    with pytest.raises(InvalidExperiment, match=told):
        small(algorithm={"name": "fails_when_imported:A"})


def test_only_what_is_allowed_is_imported_in_this_thread_and_while_it_lasts() -> None:
    told = f"the server wants this machine to run {HERE}:Halved; if you trust it, start the client with --allow-code"
    with allowing([f"{HERE}:Linear"]):
        assert load_outside(f"{HERE}:Linear") is Linear
        with pytest.raises(InvalidExperiment, match=told):
            load_outside(f"{HERE}:Halved")
        with pytest.raises(InvalidExperiment, match=told):
            small(algorithm={"name": f"{HERE}:Halved"})
        with allowing(None):
            assert load_outside(f"{HERE}:Halved") is Halved
        elsewhere: list[object] = []
        thread = threading.Thread(target=lambda: elsewhere.append(load_outside(f"{HERE}:Halved")))
        thread.start()
        thread.join()
        assert elsewhere == [Halved]
    assert load_outside(f"{HERE}:Halved") is Halved


def test_a_script_s_own_class_has_a_name_that_its_run_is_resumed_by(tmp_path: Path) -> None:
    """Whoever runs `python train.py` has the class in `__main__`, which is another module in another process."""
    (tmp_path / "train.py").write_text(
        dedent("""
            import fedopt
            from fedopt.algorithms.fedavg import FedAvg

            class Mine(FedAvg):
                pass

            if __name__ == "__main__":
                experiment = fedopt.Experiment(
                    algorithm=Mine(), data={"clients": 3}, local={"steps": 1}, run={"rounds": 1, "workers": 1}
                )
                assert experiment.algorithm.name == "train:Mine"
                assert fedopt.Experiment(algorithm={"name": "train:Mine"}).algorithm == Mine()
                fedopt.run(experiment, "run")
        """)
    )
    subprocess.run([sys.executable, "train.py"], cwd=tmp_path, check=True)
    resumed = command("run", "--resume", tmp_path / "run", "--set", "run.rounds=2", "--quiet", cwd=tmp_path.parent)
    assert resumed.returncode == 0, resumed.stderr


def test_the_old_option_is_refused_with_the_new_name(tmp_path: Path) -> None:
    asked = ("client", "--server", "127.0.0.1:1", "--client", "0", "--allow-model", f"{HERE}:factory")
    refused = command(*asked, cwd=tmp_path)
    assert refused.returncode == 2
    assert f"--allow-model is called --allow-code now: give --allow-code {HERE}:factory" in refused.stderr


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Makes a package that is installed, as far as importlib.metadata can tell, with these entry points and code."""

    def make(points: str, code: str) -> None:
        info = tmp_path / "fedopt_mine-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fedopt-mine\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[fedopt.plugins]\n{points}\n")
        (tmp_path / "fedopt_mine.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "fedopt_mine", raising=False)

    return make


MINE = "from fedopt.algorithms.fedavg import FedAvg\n\nclass Mine(FedAvg):\n    strength: float = 1.0\n"


def fresh() -> Registry:
    """As ALGORITHMS of another process, which has not looked for plugins yet."""
    entries = {name: ALGORITHMS.entry(name) for name in ("fedavg", "scaffold")}
    return Registry("algorithm", entries, base="fedopt.algorithms.base:Algorithm")


def test_an_installed_package_adds_names(install: Callable[[str, str], None]) -> None:
    install("algorithm.mine = fedopt_mine:Mine\npartition.other = nowhere:Other", MINE)
    registry = fresh()
    assert list(registry) == ["fedavg", "scaffold", "mine"]
    assert registry.entry("mine").about == "from the installed package fedopt-mine"
    kind = registry.resolve("mine")
    assert registry.names_of(kind) == ["mine"]
    assert "fedopt_mine" in sys.modules
    with allowing([]):  # what this machine has installed is its own
        assert registry.resolve("mine") is kind


def test_a_plugin_is_found_by_the_command_line(install: Callable[[str, str], None], tmp_path: Path) -> None:
    install("algorithm.mine = fedopt_mine:Mine", MINE)
    path = {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    listed = fedopt_anew("list", "algorithms", cwd=tmp_path, env=path)
    assert "mine" in listed.stdout
    few = ("data.clients=2", "local.steps=1", "run.rounds=1", "run.workers=1", "algorithm.strength=2.0")
    changes = [part for text in ("algorithm.name=mine", *few) for part in ("--set", text)]
    done = fedopt_anew("run", *changes, "--out", "run", "--quiet", cwd=tmp_path, env=path)
    assert done.returncode == 0, done.stderr
    assert 'name = "mine"' in (tmp_path / "run" / "experiment.toml").read_text()


@pytest.mark.parametrize(
    ("points", "code", "told"),
    [
        ("algorithm.fedavg = fedopt_mine:Mine", MINE, "the installed package fedopt-mine adds the algorithm fedavg, a"),
        ("algorithm.mine = fedopt_mine:Mine", "1 / 0", "mine, from the installed package fedopt-mine, cannot be impo"),
        ("algorithm.mine = fedopt_mine:Mine", "Mine = 3", "mine is no algorithm: it must be a class that derives"),
    ],
)
def test_a_plugin_that_cannot_be_one_is_refused_in_a_sentence(
    install: Callable[[str, str], None], points: str, code: str, told: str
) -> None:
    install(points, code)
    registry = fresh()
    assert registry.resolve("fedavg") is FedAvg  # a name that is built in is not looked for among plugins
    with pytest.raises((InvalidExperiment, ValueError), match=told):
        registry.resolve("mine")
