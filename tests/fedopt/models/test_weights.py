"""A run starts from the weights of a file; what does not fit is refused, except for a last layer of another shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import fedopt
from fedopt.errors import InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.models.build import build_model
from fedopt.models.weights import untrained
from fedopt.runs.setup import set_up
from fedopt.wire import Hello
from server.deployment import run_deployed


def mlp(classes: int = 10, width: int = 16) -> nn.Sequential:
    """The module of model.name = "mlp" with hidden = [width] on 8 x 8 images."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, classes))


def frozen_body(classes: int) -> nn.Module:
    module = mlp(classes)
    module[1].requires_grad_(False)
    return module


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    save_file(mlp().state_dict(), tmp_path / "start.safetensors")
    return tmp_path / "start.safetensors"


def model(file: Path, **keys: Any) -> dict[str, Any]:
    return {"name": "mlp", "hidden": [16], "weights": str(file), **keys}


def test_the_run_starts_there_and_its_model_needs_the_file_no_more(file: Path, tmp_path: Path) -> None:
    experiment = Experiment(model=model(file), local={"lr": 1e-30}, run={"rounds": 1, "workers": 1})
    history = fedopt.run(experiment, tmp_path / "run")
    torch.manual_seed(1)
    expected = mlp().state_dict()
    torch.testing.assert_close(history.weights, expected)
    assert str(file) in (tmp_path / "run" / "experiment.toml").read_text()
    file.unlink()
    torch.testing.assert_close(fedopt.load(tmp_path / "run").model().state_dict(), expected)


def test_the_last_layer_may_have_another_shape_and_a_note_says_so(tmp_path: Path) -> None:
    torch.manual_seed(1)
    other = mlp(classes=7)
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    family = Experiment(model=model(tmp_path / "other.safetensors")).model
    notes: list[str] = []
    found = build_model(family, (1, 8, 8), 10, 0, notes).state_dict()
    random = build_model(Experiment(model={"name": "mlp", "hidden": [16]}).model, (1, 8, 8), 10, 0).state_dict()
    assert torch.equal(found["1.weight"], other.state_dict()["1.weight"])
    assert torch.equal(found["3.weight"], random["3.weight"])
    assert torch.equal(found["3.bias"], random["3.bias"])
    assert notes == [
        "model.weights: 3 was not loaded and starts at random: its weight has the shape (7, 16) in other.safetensors, "
        "and (10, 16) here"
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (mlp(width=8).state_dict(), r"1\.weight has the shape \(8, 64\) in .*only the last layer, 3, may differ"),
        (mlp()[:2].state_dict(), r"it lacks 3\.weight, 3\.bias$"),
        ({**mlp().state_dict(), "4.weight": torch.ones(1)}, r"mlp has no 4\.weight$"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, content: dict[str, torch.Tensor], told: str) -> None:
    save_file(content, tmp_path / "other.safetensors")
    with pytest.raises(InvalidExperiment, match=told):
        build_model(Experiment(model=model(tmp_path / "other.safetensors")).model, (1, 8, 8), 10, 0)


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    torch.save(mlp().state_dict(), tmp_path / "start.pt")
    for name, told in (("start.pt", "is not a safetensors file; safetensors.torch.save_file"), ("gone", "there is no")):
        with pytest.raises(InvalidExperiment, match=told):
            build_model(Experiment(model=model(tmp_path / name)).model, (1, 8, 8), 10, 0)


def test_the_path_does_not_travel_and_what_clients_would_lack_is_refused(file: Path) -> None:
    experiment = Experiment(model=model(file))
    assert "weights" not in Hello.of("f", experiment, (1, 8, 8), ["0"]).sections()["model"]
    assert untrained(mlp()) is None
    assert untrained(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))) is None, "its statistics travel"
    experiment = Experiment(model={"name": f"{__name__}:frozen_body", "weights": str(file)})
    setup = set_up(experiment)
    directory = type("Directory", (), {"experiment": experiment})
    with pytest.raises(InvalidExperiment, match=r"1\.weight is not trained, so that clients would never get it"):
        run_deployed(directory, setup, None, None)  # type: ignore[arg-type]
    own = Experiment(model={"name": f"{__name__}:frozen_body", "weights": str(file), "batchnorm": "local"})
    directory = type("Directory", (), {"experiment": own})
    with pytest.raises(
        InvalidExperiment, match=r"^model\.weights: each client starts with the BatchNorm that it builds"
    ):
        run_deployed(directory, setup, None, None)  # type: ignore[arg-type]
