"""Models, algorithms and optimizers that Python code defines itself: as objects, in functions, in a session."""

from __future__ import annotations

import gc
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

import fedopt
from fedopt.algorithms.base import Algorithm
from fedopt.algorithms.fedavg import FedAvg
from fedopt.data.loading import load_dataset
from fedopt.errors import InvalidExperiment
from fedopt.vectors.layout import fingerprint


class Net(nn.Module):
    """With a frozen parameter and a buffer, neither of which follows from the run's seed."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first = nn.Linear(64, width)
        self.second = nn.Linear(width, 10)
        self.scale = nn.Parameter(torch.rand(width) + 0.5, requires_grad=False)
        self.register_buffer("shift", torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x.flatten(1)).relu() * self.scale + self.shift)
        return out


def make(sample_shape: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(sample_shape[1] * sample_shape[2], classes))


def small(rounds: int = 3, workers: int = 1) -> fedopt.Experiment:
    return fedopt.Experiment(
        algorithm={"name": "scaffold"},
        run={"rounds": rounds, "cohort": 3, "workers": workers},
        local={"epochs": 1},
    )


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(3)
    return Net()


@pytest.fixture(scope="module")
def whole(net: Net, tmp_path_factory: pytest.TempPathFactory) -> fedopt.History:
    return fedopt.run(small(), tmp_path_factory.mktemp("own") / "whole", model=net)


def test_a_module_starts_at_its_own_weights_and_is_not_changed(net: Net, tmp_path: Path) -> None:
    before = fingerprint(net.state_dict())
    with fedopt.rounds(small(), tmp_path / "run", model=net) as steps:
        record, model = next(steps)
    assert fingerprint(net.state_dict()) == before
    moved = sum(
        (new - old).pow(2).sum()
        for new, old in zip(model.state_dict().values(), net.state_dict().values(), strict=True)
    )
    assert float(moved) ** 0.5 == pytest.approx(record.update_norm, rel=1e-5)
    assert torch.equal(model.state_dict()["scale"], net.scale)
    assert torch.equal(model.state_dict()["shift"], net.state_dict()["shift"])


def test_the_experiment_says_which_class_it_was(whole: fedopt.History, net: Net) -> None:
    written = tomllib.loads((whole.directory / "experiment.toml").read_text())
    code = written["model"].pop("code")
    assert len(code) == 16
    assert written["model"] == {
        "name": "object",
        "kind": "tests.simulations.test_own_models:Net",
        "sha256": fingerprint(net.state_dict()),
        "batchnorm": "refuse",
    }


def test_the_history_of_a_module_has_its_model(whole: fedopt.History) -> None:
    model = whole.model()
    assert isinstance(model, Net)
    assert fingerprint(model.state_dict()) == whole.summary.weights_sha256
    data = load_dataset(whole.experiment.data, 0)
    with torch.no_grad():
        accuracy = (model(data.x_test).argmax(1) == data.y_test).double().mean().item()
    assert accuracy == pytest.approx(whole.summary.final.test_accuracy)
    assert isinstance(fedopt.load(whole.directory).model(), Net), "this process still has it"


def test_workers_and_pauses_change_no_bit(whole: fedopt.History, net: Net, tmp_path: Path) -> None:
    two = fedopt.run(small(workers=2), tmp_path / "two", model=net)
    assert two.summary.weights_sha256 == whole.summary.weights_sha256
    fedopt.run(small(1), tmp_path / "run", model=net)
    again = fedopt.resume(tmp_path / "run", ["run.rounds=3"], model=net)
    assert again.summary.weights_sha256 == whole.summary.weights_sha256


def test_another_process_resumes_it_with_a_module_of_the_same_class(whole: fedopt.History, tmp_path: Path) -> None:
    torch.manual_seed(5)
    other = Net()  # neither the weights, the frozen parameter nor the buffer are those of the run
    started = Net(8)
    fedopt.run(small(1), tmp_path / "run", model=started)
    expected = fedopt.run(small(3), tmp_path / "expected", model=started).summary.weights_sha256
    del started
    gc.collect()
    with pytest.raises(InvalidExperiment, match=r"model is tests\.simulations\.test_own_models:Net, which was passed"):
        fedopt.resume(tmp_path / "run")
    with pytest.raises(InvalidExperiment, match="pass it again"):
        fedopt.load(tmp_path / "run").model()
    with pytest.raises(InvalidExperiment, match=r"it is not the .*:Net that the run began with: .* is torch\.float32"):
        fedopt.resume(tmp_path / "run", ["run.rounds=3"], model=Net(9))
    with pytest.raises(InvalidExperiment, match=r"was begun with .*:Net, and model= is torch.*:Linear; pass"):
        fedopt.resume(tmp_path / "run", ["run.rounds=3"], model=nn.Linear(64, 10))
    assert fedopt.resume(tmp_path / "run", ["run.rounds=3"], model=other).summary.weights_sha256 == expected


def test_another_process_loads_it_with_a_module_of_the_same_class(tmp_path: Path) -> None:
    weights = fedopt.run(small(1), tmp_path / "run", model=Net(8)).summary.weights_sha256
    gc.collect()
    with pytest.raises(InvalidExperiment, match=r"as fedopt\.load\(directory, model=\.\.\.\) or fedopt\.resume"):
        fedopt.load(tmp_path / "run").model()
    loaded = fedopt.load(tmp_path / "run", model=Net(8))
    gc.collect()
    model = loaded.model()
    assert isinstance(model, Net)
    assert fingerprint(model.state_dict()) == weights
    with pytest.raises(InvalidExperiment, match=r"it is not the .*:Net that the run began with"):
        fedopt.load(tmp_path / "run", model=Net(9))
    with pytest.raises(InvalidExperiment, match=r"was begun with .*:Net, and model= is torch.*:Linear"):
        fedopt.load(tmp_path / "run", model=nn.Linear(64, 10))
    with pytest.raises(InvalidExperiment, match="was begun with a model alone, and model= has nll_loss"):
        fedopt.load(tmp_path / "run", model=(Net(8), "nll_loss"))
    fedopt.run(small(1).replace(model={"name": "logistic"}), tmp_path / "built")
    with pytest.raises(InvalidExperiment, match="was begun with logistic, which it builds itself; leave out model="):
        fedopt.load(tmp_path / "built", model=Net(8))


def test_a_function_makes_the_model_of_the_data(tmp_path: Path) -> None:
    named = fedopt.run(small().replace(model=f"{__name__}:make"), tmp_path / "named")
    given = fedopt.run(small(), tmp_path / "given", model=make)
    by_place = fedopt.run(small(1), tmp_path / "place", model=lambda shape, n: make(shape, n))
    assert given.summary.weights_sha256 == named.summary.weights_sha256
    assert isinstance(given.model(), nn.Sequential)
    resumed = fedopt.resume(tmp_path / "place", ["run.rounds=3"], model=lambda shape, n: make(shape, n))
    assert resumed.summary.weights_sha256 == named.summary.weights_sha256
    assert by_place.records[0].train_loss == named.records[0].train_loss


@pytest.mark.parametrize("defined", ["function", "object", "name"])
def test_a_pair_has_its_loss(net: Net, tmp_path: Path, defined: str) -> None:
    def mine(logits: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.multi_margin_loss(logits, targets, margin=2.0, reduction="none")

    losses = {"function": mine, "object": nn.MultiMarginLoss(margin=2.0), "name": "multi_margin_loss"}
    margin = 1.0 if defined == "name" else 2.0
    pair = (net, losses[defined])
    history = fedopt.run(small(1), tmp_path / "run", model=pair)  # type: ignore[arg-type]
    data = load_dataset(history.experiment.data, 0)
    with torch.no_grad():
        expected = nn.functional.multi_margin_loss(history.model()(data.x_test), data.y_test, margin=margin).item()
    assert history.summary.final.test_loss == pytest.approx(expected, rel=1e-5)
    with pytest.raises(InvalidExperiment, match=r"was begun with the loss .*, and model= has nll_loss"):
        fedopt.resume(tmp_path / "run", ["run.rounds=2"], model=(net, "nll_loss"))
    again = fedopt.resume(tmp_path / "run", ["run.rounds=2"], model=pair)  # type: ignore[arg-type]
    whole = fedopt.run(small(2), tmp_path / "whole", model=pair)  # type: ignore[arg-type]
    assert again.summary.weights_sha256 == whole.summary.weights_sha256


def test_models_of_one_name_are_not_confused(tmp_path: Path) -> None:
    """Closures of one factory, and modules of one class with equal weights, have one name each."""

    def factory(activation: type[nn.Module]) -> Callable[..., nn.Module]:
        def build(sample_shape: tuple[int, ...], classes: int) -> nn.Module:
            return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), activation(), nn.Linear(8, classes))

        return build

    def ready(activation: type[nn.Module]) -> nn.Module:
        torch.manual_seed(0)
        return factory(activation)((1, 8, 8), 10)

    makers: list[Callable[[type[nn.Module]], Callable[..., nn.Module]]] = [factory, ready]
    for make_model in makers:
        kinds = (nn.ReLU, nn.Tanh)
        histories = [
            fedopt.run(small(1), tmp_path / f"{make_model.__name__}-{kind.__name__}", model=make_model(kind))
            for kind in kinds
        ]
        for kind, history in zip(kinds, histories, strict=True):
            assert isinstance(history.model()[2], kind)  # type: ignore[index]
        assert histories[0].experiment != histories[1].experiment


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    for model, sentence in [
        (3, r"model=: it must be a torch\.nn\.Module, or a function of sample_shape and classes .*, not int"),
        (lambda: 3, r"model=: .* returned int, not a torch\.nn\.Module"),
        (lambda a, b, c: 3, r"model=: .* cannot be called: "),
        (nn.BatchNorm1d(3), r"BatchNorm1d has BatchNorm1d at its root"),
        ((nn.Linear(3, 2), nn.NLLLoss), r"model=: a pair is \(model, loss\)"),
        (nn.Linear(3, 2), r"cannot take samples of shape \(1, 8, 8\)"),
    ]:
        with pytest.raises(InvalidExperiment, match=sentence):
            fedopt.run(small(), tmp_path / "run", model=model)  # type: ignore[arg-type]
        assert not (tmp_path / "run").exists()
    with pytest.raises(InvalidExperiment, match="engine: ray trains in processes that do not see"):
        fedopt.run(small(), tmp_path / "run", engine="ray", model=make)
    with pytest.raises(InvalidExperiment, match=r"experiment: it must be a fedopt\.Experiment, not dict; "):
        fedopt.run({"run": {"rounds": 1}}, tmp_path / "run")  # type: ignore[arg-type]
    with pytest.raises(InvalidExperiment, match=r"model\.name: object stands for a model in Python"):
        fedopt.Experiment(model={"name": "object"})


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_algorithm_of_a_function_runs_and_resumes_in_this_process(tmp_path: Path, workers: int) -> None:
    class Halved(FedAvg):
        """FedAvg that takes `share` of each step, which is FedAvg with that server rate."""

        share: float = Field(0.5, gt=0)

        def advance(self, round_, x, server, totals):  # type: ignore[no-untyped-def]
            new, server = super().advance(round_, x, server, totals)
            return x + self.share * (new - x), server

    mine = small(2, workers).replace(algorithm=Halved(share=0.25))
    known = fedopt.run(small(2).replace(algorithm=FedAvg(server_lr=0.25)), tmp_path / "known")
    found = fedopt.run(mine, tmp_path / "mine")
    assert found.records[-1].train_loss == pytest.approx(known.records[-1].train_loss, rel=1e-5)
    assert isinstance(found.experiment.algorithm, Algorithm)
    fedopt.run(mine.replace(run={"rounds": 1}), tmp_path / "again")
    assert fedopt.resume(tmp_path / "again", ["run.rounds=2"]).summary.weights_sha256 == found.summary.weights_sha256
    assert fedopt.load(tmp_path / "again").experiment.algorithm == mine.algorithm


SESSION = """
import fedopt, sys
from fedopt.algorithms.fedavg import FedAvg
from fedopt.optimizers.sgd import Sgd
from torch import nn
sys.modules["__main__"].__dict__.pop("__file__", None)  # as in a notebook
class Mine(FedAvg): pass
class Steps(Sgd): pass
class Net(nn.Sequential): pass
net = Net(nn.Flatten(), nn.Linear(64, 10))
one = fedopt.Experiment(algorithm=Mine(), local={"optimizer": Steps(), "epochs": 1}, run={"rounds": 1, "workers": 2})
fedopt.run(one, sys.argv[1], model=net)
history = fedopt.resume(sys.argv[1], ["run.rounds=2"])
assert history.summary.rounds == 2 and type(history.model()) is Net
"""


def test_what_a_notebook_defines_runs_there_and_says_so_elsewhere(tmp_path: Path) -> None:
    run = tmp_path / "run"
    subprocess.run([sys.executable, "-c", SESSION, str(run)], check=True, cwd=tmp_path, timeout=300)
    written = tomllib.loads((run / "experiment.toml").read_text())
    assert written["algorithm"]["name"] == "__main__:Mine"
    assert written["local"]["optimizer"] == "__main__:Steps"
    assert written["model"]["kind"] == "__main__:Net"
    with pytest.raises(
        InvalidExperiment,
        match=r"algorithm\.name: __main__:Mine was defined in a notebook, a session or a function; define it there "
        r"again, or move it to a module",
    ):
        fedopt.resume(run)
