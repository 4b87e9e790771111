"""An exported model answers as the module does, in ONNX Runtime; model.safetensors loads into the plain module."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import safetensors.torch
import torch
from torch import nn
from typer.testing import CliRunner

import fedopt
from fedopt.commands.export import app
from fedopt.errors import NotStored


@pytest.mark.parametrize("name", ["mlp", pytest.param("resnet8", marks=pytest.mark.slow)])
def test_an_exported_model_answers_as_the_module_does(tmp_path: Path, name: str) -> None:
    experiment = fedopt.Experiment(model={"name": name}, run={"rounds": 1, "cohort": 1, "workers": 1})
    history = fedopt.run(experiment, tmp_path / "run")
    file = tmp_path / "model.onnx"
    done = CliRunner().invoke(app, [str(history.directory), "--onnx", str(file)])
    assert done.exit_code == 0, done.output
    assert done.output == f"written: {file}\n"
    session = onnxruntime.InferenceSession(file)
    (entry,), (result,) = session.get_inputs(), session.get_outputs()
    assert (entry.name, entry.shape) == ("x", ["batch", 1, 8, 8])
    assert result.name == "logits"
    for batch in (1, 7):
        x = torch.randn(batch, 1, 8, 8, generator=torch.Generator().manual_seed(batch))
        (found,) = session.run(None, {"x": x.numpy()})
        np.testing.assert_allclose(found, history.model()(x).detach().numpy(), rtol=1e-5, atol=1e-5)
    with pytest.raises(NotStored, match="is gone"):
        history.to_onnx(tmp_path / "no folder" / "model.onnx")


def test_the_weights_load_into_the_plain_module(tmp_path: Path) -> None:
    experiment = fedopt.Experiment(model={"name": "mlp", "hidden": [16]}, run={"rounds": 1, "workers": 1})
    history = fedopt.run(experiment, tmp_path / "run")
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    module.load_state_dict(safetensors.torch.load_file(tmp_path / "run" / "model.safetensors"))
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(module(x), history.model()(x))
