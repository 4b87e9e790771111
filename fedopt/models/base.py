"""A model family: settings that build a torch module for given data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, model_validator
from torch import Tensor, nn

from fedopt.errors import InvalidExperiment
from fedopt.family import Family
from fedopt.imports import CannotImport, is_reading_only, load_outside
from fedopt.models import LOSSES, MODELS
from fedopt.models.batchnorm import BatchNormPolicy
from fedopt.registry import Registry, UnknownName
from fedopt.section import wrong

Shape = tuple[int, ...]


class ModelFamily(Family, ABC):
    """Base of all families; its fields are the keys of the experiment's [model] section."""

    registry: ClassVar[Registry] = MODELS

    loss: str | None = None
    """cross_entropy by default, mse_loss where targets are numbers, another one of `fedopt list losses`, or your own
    function as package.module:function, of logits [B, classes] and class indices [B]. A LightningModule brings its
    own."""
    label_smoothing: float | None = Field(None, ge=0, lt=1)
    """Of cross_entropy: the share of a target's weight that is spread over all classes; 0 by default."""

    class_weights: tuple[Annotated[float, Field(ge=0)], ...] | None = Field(None, min_length=1, strict=False)
    """Of cross_entropy: what the loss of a sample of each class is multiplied by. A mean is over samples, whatever they
    weigh."""

    weights: Annotated[Path, AfterValidator(Path.absolute)] | None = Field(None, strict=False)
    """A .safetensors file with a state_dict to start from; random by default. The last layer may have another shape: it
    then starts at random."""

    freeze: tuple[str, ...] | None = Field(None, strict=False)
    """Patterns of names of parameters, such as "conv1.*", that stay as they start: they are not trained and do not
    travel. A pattern that begins with "!" excepts parameters from those before it."""

    batchnorm: BatchNormPolicy = "refuse"
    """What becomes of BatchNorm: a model that has it is refused; or the clients' running statistics are averaged with
    their updates (average); or it stays with each client, whose model is its own, as in FedBN (local)."""

    @model_validator(mode="after")
    def _loss_exists(self) -> ModelFamily:
        if self.label_smoothing is not None and self.loss not in (None, "cross_entropy"):
            raise wrong("label_smoothing", f"is a key of cross_entropy, not of {self.loss}")
        if self.class_weights is not None and self.loss not in (None, "cross_entropy"):
            raise wrong("class_weights", f"is a key of cross_entropy, not of {self.loss}")
        if self.loss is None:
            return self
        try:
            if not LOSSES.is_outside(self.loss):
                LOSSES.check(self.loss)
            elif not is_reading_only():
                load_outside(self.loss)
        except (UnknownName, CannotImport) as error:
            raise wrong("loss", str(error)) from error
        return self

    @property
    def title(self) -> str:
        """What messages call it."""
        return self.name

    def outside_names(self) -> set[str]:
        names = super().outside_names()
        return names if self.loss is None or not LOSSES.is_outside(self.loss) else {*names, self.loss}

    @abstractmethod
    def build(self, sample_shape: Shape, classes: int) -> nn.Module:
        """A module from samples [B, *sample_shape] to logits [B, classes]. Initialized by torch's defaults."""

    def output_shape(self, sample_shape: Shape, classes: int) -> Shape:
        """What the module makes of one sample; (length, classes) where a class is predicted at every position."""
        return (classes,)

    def targets_of(self, x: Tensor, y: Tensor) -> Tensor:
        """What the module is to predict for samples x [n, *sample_shape] with the labels y of the data: y itself, or
        classes [n, length]. InvalidExperiment if there is no such thing."""
        return y

    def check_samples(self, x: Tensor, classes: int) -> None:
        """InvalidExperiment if samples [n, *sample_shape] of these values cannot be read, whatever their shape."""

    def initial_state(self) -> dict[str, Tensor] | None:
        """A state_dict that a run has to store, because the settings and the seed do not give it."""
        return None

    def image_shape(self, sample_shape: Shape, smallest: int) -> tuple[int, int, int]:
        """(channels, height, width), for families that work on images of at least smallest x smallest."""
        if len(sample_shape) != 3 or min(sample_shape[1:]) < smallest:
            raise InvalidExperiment(
                f"model.name: {self.name} needs images of at least {smallest} x {smallest} pixels, the data "
                f"have samples of shape {sample_shape}; mlp and logistic take any shape"
            )
        channels, height, width = sample_shape
        return channels, height, width
