"""Models of torchvision and timm by name; BatchNorm is refused, or replaced where the experiment says so."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn
from torchvision import models

from fedopt.errors import InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.experiment.file import as_sections, override
from fedopt.family import outside_names
from fedopt.models.build import build_model
from fedopt.models.norm import with_group_norm
from fedopt.vectors.layout import Layout, fingerprint


def build(shape: tuple[int, ...] = (3, 32, 32), seed: int = 0, **keys: Any) -> nn.Module:
    return build_model(Experiment(model=keys).model, shape, 10, seed)


def test_a_torchvision_model_is_the_one_that_torchvision_builds() -> None:
    module = build(name="torchvision:squeezenet1_1", dropout=0.25)
    expected = models.squeezenet1_1(weights=None, num_classes=10)
    shapes = {name: p.shape for name, p in expected.named_parameters()}
    assert {name: p.shape for name, p in module.named_parameters()} == shapes
    assert module.classifier[0].p == 0.25  # type: ignore[union-attr, index]
    assert fingerprint(module.state_dict()) == fingerprint(build(name="torchvision:squeezenet1_1").state_dict())


def test_a_timm_model_has_the_classes_and_the_channels_of_the_data() -> None:
    module = build((1, 28, 28), name="timm:vit_tiny_patch16_224", img_size=28, patch_size=7, depth=2)
    expected = timm.create_model("vit_tiny_patch16_224", num_classes=10, in_chans=1, img_size=28, patch_size=7, depth=2)
    assert Layout.of(module).size == sum(p.numel() for p in expected.parameters())


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet18"])
def test_batch_norm_is_refused_or_replaced(name: str) -> None:
    with pytest.raises(InvalidExperiment, match=r'BatchNorm.* model\.norm = "group" replaces it, or use nn\.GroupNorm'):
        build(name=name)
    module = build(name=name, norm="group", norm_groups=4)
    norms = [layer for layer in module.modules() if isinstance(layer, nn.GroupNorm)]
    assert len(norms) == 20  # He et al. 2016: one for each convolution
    assert {norm.num_groups for norm in norms} == {4}
    assert not any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in module.modules())


def test_one_group_per_sample_is_the_layer_norm_of_the_channels() -> None:
    """GroupNorm with one group normalizes all channels and pixels of a sample together (Wu, He 2018)."""
    batch_norm = nn.BatchNorm2d(6, eps=0.01).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        batch_norm.weight.copy_(torch.randn(6, generator=generator))
        batch_norm.bias.copy_(torch.randn(6, generator=generator))
    x = torch.randn(3, 6, 4, 4, generator=generator, dtype=torch.float64)
    centered = x - x.mean(dim=(1, 2, 3), keepdim=True)
    scaled = centered / (centered.square().mean(dim=(1, 2, 3), keepdim=True) + 0.01).sqrt()
    expected = scaled * batch_norm.weight.view(1, -1, 1, 1) + batch_norm.bias.view(1, -1, 1, 1)
    found = with_group_norm(nn.Sequential(batch_norm), 1, "it").double()(x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_the_activation_in_a_norm_layer_stays() -> None:
    module = build(name="timm:mobilenetv3_small_050", norm="group", norm_groups=1)
    plain = timm.create_model("mobilenetv3_small_050", num_classes=10)

    def activations(net: nn.Module) -> int:
        kinds = (nn.ReLU, nn.Hardswish, timm.layers.HardSwish)
        return sum(isinstance(layer, kinds) for layer in net.modules())

    assert activations(module) == activations(plain) > 0


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"name": "torchvision:resnet81"}, r"torchvision has no model 'resnet81' .*did you mean torchvision:resnet18"),
        ({"name": "torchvision:fcn_resnet50"}, "has no model 'fcn_resnet50' for classification"),
        ({"name": "timm:resnet_18"}, "timm has no model 'resnet_18' .*did you mean timm:resnet18"),
        ({"name": "timm:hf-hub:someone/something"}, "timm has no model 'hf-hub:someone/something'"),
        ({"name": "timm:resnet18", "pretrained": True}, r"model\.pretrained: models are built without downloads"),
        ({"name": "timm:resnet18", "checkpoint_path": "x"}, r"model\.checkpoint_path: models are built without"),
        ({"name": "torchvision:resnet18", "width": 3}, "cannot be called: .*width"),
        ({"name": "torchvision:resnet18", "norm": "group", "norm_groups": 7}, "7 does not divide the 64 channels"),
        ({"name": "torchvision:resnet18", "norm_groups": 4}, r'model\.norm_groups: needs norm = "group"'),
        (
            {"name": "torchvision:squeezenet1_1", "norm": "group"},
            r"model\.norm: torchvision:squeezenet1_1 has no BatchNorm",
        ),
        ({"name": "mlp", "norm": "group"}, r"model\.norm: unknown key"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_reason(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidExperiment, match=told):
        build(**keys)


def test_torchvision_says_that_it_takes_color_images() -> None:
    with pytest.raises(InvalidExperiment, match="takes images with 3 channels, the data have 1; timm:NAME"):
        build((1, 28, 28), name="torchvision:resnet18")


def test_the_experiment_comes_back_from_its_table() -> None:
    experiment = Experiment(model={"name": "timm:resnet18", "norm": "group", "drop_rate": 0.1})
    assert Experiment(**as_sections(experiment)) == experiment
    assert outside_names(experiment) == set()  # so a client needs no permission to run it
    other = override(as_sections(experiment), ["model.name=mlp"])
    assert Experiment(**other).model.name == "mlp"
