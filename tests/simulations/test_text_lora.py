"""The example of a text classifier with LoRA: what is frozen neither changes nor travels."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch

import fedopt
from fedopt.models.build import build_model

EXAMPLE = Path(__file__).parents[2] / "examples" / "text-lora"
TRAINED = 2 * 2 * (4 * 64 + 64 * 4) + 64 * 4 + 4
"""Two layers, queries and values, A [4, 64] and B [64, 4] each; the head of 64 x 4 weights and 4 biases."""


@pytest.mark.slow
def test_only_the_adapters_and_the_head_travel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLE)
    sys.modules.pop("text_lora", None)
    text_lora = importlib.import_module("text_lora")

    text_lora.write_texts(str(tmp_path / "texts.npz"), samples=400, test=100)
    experiment = fedopt.Experiment.from_toml(
        EXAMPLE / "experiment.toml",
        f"data.path={tmp_path / 'texts.npz'}",
        "run.rounds=1",
        "run.cohort=2",
        "run.workers=1",
        "data.clients=5",
        "local.epochs=1",
        "metrics.drift_every=0",
    )
    history = fedopt.run(experiment, tmp_path / "run")
    (record,) = history.records
    assert record.bytes_down == record.bytes_up == 2 * 4 * TRAINED
    start = build_model(experiment.model, (text_lora.LENGTH,), 4, experiment.run.seed)
    trainable = {name for name, parameter in start.named_parameters() if parameter.requires_grad}
    assert sum(start.get_parameter(name).numel() for name in trainable) == TRAINED
    for name, value in start.state_dict().items():
        assert torch.equal(history.weights[name], value) == (name not in trainable), name
    x = torch.tensor([[1.0] * 3 + [30.0] * 2 + [0.0] * (text_lora.LENGTH - 5)])
    assert history.model()(x).shape == (1, 4)
