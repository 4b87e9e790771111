"""Models have the shapes they are named for, depend on the seed alone, and what cannot be federated is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fedopt.errors import InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.models.build import build_model
from fedopt.vectors.layout import Layout, fingerprint


def build(section: dict[str, Any], shape: tuple[int, ...] = (1, 28, 28), seed: int = 0) -> nn.Module:
    return build_model(Experiment(model=section).model, shape, 10, seed)


@pytest.mark.parametrize(
    ("section", "shape", "parameters"),
    [
        ({"name": "logistic"}, (1, 28, 28), 784 * 10 + 10),
        # the "2NN" of McMahan et al. 2017 has 199,210 parameters
        ({"name": "mlp", "hidden": [200, 200]}, (1, 28, 28), 199_210),
        ({"name": "cnn"}, (1, 28, 28), 44_426),
        ({"name": "cnn"}, (3, 32, 32), 62_006),  # LeNet on CIFAR-10
        # its CNN has 1,663,370
        ({"name": "cnn-mcmahan"}, (1, 28, 28), 1_663_370),
        # per layer four gates (GRU: three) with two biases, as torch has it
        ({"name": "lstm"}, (80,), 10 * 8 + 4 * 256 * (8 + 256 + 2) + 4 * 256 * (2 * 256 + 2) + 257 * 10),
        ({"name": "gru", "layers": 1, "hidden": 5}, (80,), 10 * 8 + 3 * 5 * (8 + 5 + 2) + 6 * 10),
        (
            {"name": "resnet18"},
            (3, 32, 32),
            11_173_962,
        ),  # as the common CIFAR ResNet-18: norms have weight and bias too
    ],
)
def test_parameter_counts_are_those_of_the_papers(
    section: dict[str, Any], shape: tuple[int, ...], parameters: int
) -> None:
    assert Layout.of(build(section, shape)).size == parameters


@pytest.mark.parametrize("name", ["logistic", "mlp", "cnn", "cnn-mcmahan", "resnet8"])
def test_weights_are_a_function_of_the_seed(name: str) -> None:
    first, again, other = (fingerprint(build({"name": name}, seed=seed).state_dict()) for seed in (0, 0, 1))
    assert first == again != other


def batch_normed() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.BatchNorm1d(10))


def lazy() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))


def frozen() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).requires_grad_(False)


def too_narrow() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(783, 10))


def wrong_classes(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, classes + 1))


def no_module() -> int:
    return 3


def sized(sample_shape: tuple[int, ...], classes: int, width: int = 5) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(sample_shape[-1] * sample_shape[-2], width), nn.Linear(width, classes))


@pytest.mark.parametrize(
    ("factory", "told"),
    [
        ("batch_normed", "BatchNorm1d at 2, whose batch statistics .* use nn.GroupNorm or nn.LayerNorm instead"),
        ("lazy", "LazyLinear at 1, whose size is not known yet"),
        ("frozen", "has no trainable parameters"),
        ("too_narrow", "cannot take samples of shape"),
        ("wrong_classes", "one logit for each class"),
        ("no_module", "returned int, not a torch.nn.Module"),
        ("absent", "cannot be imported"),
    ],
)
def test_what_cannot_be_federated_is_refused_with_the_reason(factory: str, told: str) -> None:
    with pytest.raises(InvalidExperiment, match=told):
        build({"name": f"tests.fedopt.models.test_models:{factory}"})


def test_a_factory_of_ones_own_gets_its_keys_and_the_shapes() -> None:
    module = build({"name": "tests.fedopt.models.test_models:sized", "width": 7})
    assert Layout.of(module).size == 784 * 7 + 7 + 7 * 10 + 10
    with pytest.raises(InvalidExperiment, match="cannot be called"):
        build({"name": "tests.fedopt.models.test_models:sized", "depth": 7})


def test_a_factory_is_found_where_the_user_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_models.py").write_text(
        "from torch import nn\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert Layout.of(build({"name": "my_models:net"})).size == 7850


def test_a_cnn_says_how_large_images_must_be() -> None:
    with pytest.raises(InvalidExperiment, match="needs images of at least 16 x 16 pixels"):
        build({"name": "cnn"}, (1, 8, 8))


def test_groups_must_divide_the_channels() -> None:
    with pytest.raises(InvalidExperiment, match=r"model\.groups: 7 does not divide"):
        build({"name": "resnet8", "groups": 7})


def test_flat_vectors_and_named_parameters_are_the_same_numbers() -> None:
    module = build({"name": "cnn"})
    layout = Layout.of(module)
    flat = layout.flatten(module)
    assert all(torch.equal(view, dict(module.named_parameters())[name]) for name, view in layout.split(flat).items())
    lanes = torch.stack([flat, 2 * flat])
    assert all(torch.equal(view[1], 2 * layout.split(flat)[name]) for name, view in layout.split(lanes).items())
