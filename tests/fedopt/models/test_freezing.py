"""model.freeze: what is frozen by name is what requires_grad = False freezes in a module of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fedopt
from fedopt.errors import InvalidExperiment
from fedopt.models.build import build_model
from fedopt.vectors.layout import Layout

MLP = {"name": "mlp", "hidden": [16, 8]}  # parameters 1.*, 3.* and 5.*
RUN: dict[str, dict[str, Any]] = {
    "data": {"clients": 4},
    "local": {"steps": 3},
    "run": {"rounds": 2, "workers": 1, "dtype": "float64"},
    "metrics": {"drift_every": 0, "clients_every": 0},
}


def trained(patterns: list[str]) -> tuple[str, ...]:
    family = fedopt.Experiment(model={**MLP, "freeze": patterns}).model
    return Layout.of(build_model(family, (1, 8, 8), 10, 0)).names


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        (["1.*"], ("3.weight", "3.bias", "5.weight", "5.bias")),
        (["*.bias", "[13].*"], ("5.weight",)),
        (["*", "!5.*"], ("5.weight", "5.bias")),
        (["*", "!5.*", "5.bias"], ("5.weight",)),
        ([], ("1.weight", "1.bias", "3.weight", "3.bias", "5.weight", "5.bias")),
    ],
)
def test_patterns_count_in_their_order(patterns: list[str], left: tuple[str, ...]) -> None:
    assert trained(patterns) == left


@pytest.mark.parametrize(
    ("patterns", "sentence"),
    [
        (["1.*", "7.*"], r"model\.freeze: no parameter of mlp is named '7\.\*'; .*one of 1\.weight"),
        (["*", "!7.*"], r"no parameter of mlp is named '7\.\*'"),
        (["3.wieght"], r"did you mean 3\.weight\?"),
        (["*"], "it leaves nothing of mlp to train"),
    ],
)
def test_patterns_without_sense_are_refused(patterns: list[str], sentence: str) -> None:
    with pytest.raises(InvalidExperiment, match=sentence):
        trained(patterns)


def test_a_run_is_that_of_a_module_with_frozen_parameters(tmp_path: Path) -> None:
    experiment = fedopt.Experiment(**RUN, model={**MLP, "freeze": ["1.*"]})
    module = build_model(fedopt.Experiment(model=MLP).model, (1, 8, 8), 10, 0)
    start = {name: value.double() for name, value in module.state_dict().items()}
    assert isinstance(module, nn.Sequential)
    module[1].requires_grad_(False)
    by_key = fedopt.run(experiment, tmp_path / "key")
    by_hand = fedopt.run(fedopt.Experiment(**RUN), tmp_path / "hand", model=module)
    for name, weight in by_key.weights.items():
        assert torch.equal(weight, by_hand.weights[name])
        assert torch.equal(weight, start[name]) == name.startswith("1.")
    entries = 8 * (16 + 1) + 10 * (8 + 1)
    assert by_key.records[0].bytes_down == by_hand.records[0].bytes_down
    assert by_key.records[0].bytes_down == 8 * entries * len(by_key.records[0].cohort)


def test_the_run_says_what_is_trained() -> None:
    notes: list[str] = []
    build_model(fedopt.Experiment(model={**MLP, "freeze": ["1.*"]}).model, (1, 8, 8), 10, 0, notes)
    assert notes == ["model.freeze: 226 of 1,266 parameters are trained, and only they travel"]
