"""The character models of the federated literature: an embedding, recurrent layers, logits of the next character."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from fedopt.errors import InvalidExperiment
from fedopt.models.base import ModelFamily, Shape
from fedopt.section import wrong


class Recurrent(ModelFamily):
    """Base of the families below. The defaults are the stacked LSTM of McMahan et al. 2017: 8, then twice 256."""

    cell: ClassVar[type[nn.GRU] | type[nn.LSTM]]

    embedding: int = Field(8, ge=1)
    """Numbers that stand for a character."""
    hidden: int = Field(256, ge=1)
    """Width of a recurrent layer."""
    layers: int = Field(2, ge=1, le=100)
    """Recurrent layers."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Between recurrent layers."""
    targets: Literal["last", "all"] = "last"
    """What is predicted: the character after a sample (last), or at every position of it the next one (all), which are
    the sample's own characters and then that one. Loss and accuracy are means over all positions."""

    @model_validator(mode="after")
    def _dropout_is_between_layers(self) -> Recurrent:
        if self.dropout and self.layers == 1:
            raise wrong("dropout", "is between recurrent layers, and there is one; set model.layers = 2 or more")
        return self

    def build(self, sample_shape: Shape, classes: int) -> nn.Module:
        if len(sample_shape) != 1:
            raise InvalidExperiment(
                f"model.name: {self.name} reads sequences of characters, the data have samples of shape "
                f"{sample_shape}; use it with data such as shakespeare or leaf"
            )
        rnn = self.cell(self.embedding, self.hidden, self.layers, batch_first=True, dropout=self.dropout)
        kind = NextCharacter if self.targets == "last" else NextCharacters
        return kind(nn.Embedding(classes, self.embedding), rnn, nn.Linear(self.hidden, classes))

    def output_shape(self, sample_shape: Shape, classes: int) -> Shape:
        return (classes,) if self.targets == "last" else (*sample_shape, classes)

    def targets_of(self, x: Tensor, y: Tensor) -> Tensor:
        if self.targets == "last":
            return y
        if y.is_floating_point():
            raise InvalidExperiment(
                'model.targets: "all" takes the next characters from the samples themselves, and the data have numbers '
                "to predict; give one label a sample, the number of the character after it"
            )
        return torch.cat([x[:, 1:].to(y.dtype), y[:, None]], dim=1)

    def check_samples(self, x: Tensor, classes: int) -> None:
        if not bool(((x >= 0) & (x < classes) & (x == x.floor())).all()):
            raise InvalidExperiment(
                f"model.name: {self.name} reads the numbers of characters, which are whole numbers below the data's "
                f"{classes} classes, and the samples have others, as {_another(x, classes):g}"
            )


class Gru(Recurrent):
    cell: ClassVar[type[nn.GRU] | type[nn.LSTM]] = nn.GRU


class Lstm(Recurrent):
    cell: ClassVar[type[nn.GRU] | type[nn.LSTM]] = nn.LSTM


class NextCharacter(nn.Module):
    """From the numbers of characters [B, length] to logits of the one after them [B, characters]."""

    def __init__(self, table: nn.Embedding, rnn: nn.RNNBase, out: nn.Linear) -> None:
        super().__init__()
        self.table, self.rnn, self.out = table, rnn, out

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.rnn(self.table(x.long()))
        logits: Tensor = self.out(states[:, -1])
        return logits


class NextCharacters(NextCharacter):
    """From the numbers of characters [B, length] to logits of the one after each of them, [B, length, characters]."""

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.rnn(self.table(x.long()))
        logits: Tensor = self.out(states)
        return logits


def _another(x: Tensor, classes: int) -> float:
    flat = x.flatten()
    return float(flat[torch.nonzero((flat < 0) | (flat >= classes) | (flat != flat.floor()))[0, 0]])
