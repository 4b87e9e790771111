"""What a module does beyond computing its output is found by running it, whatever its class is called."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedopt.errors import InvalidExperiment
from fedopt.models.activations import activations
from fedopt.models.behavior import draws_in_training

X = torch.randn(10, 6, generator=torch.Generator().manual_seed(0))


class Head(nn.Module):
    """A linear layer; what comes before it is up to the class below."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def before(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layer(self.before(x))
        return logits


class Dropped(Head):
    def before(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, self.training)


class Attentive(Head):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, dropout=0.3, batch_first=True)

    def before(self, x: Tensor) -> Tensor:
        tokens = x[:, None].expand(-1, 3, -1)
        mixed: Tensor = self.attention(tokens, tokens, tokens, need_weights=False)[0].sum(1)
        return mixed


class Noisy(Head):
    def before(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x) if self.training else x


class AlwaysNoisy(Head):
    def before(self, x: Tensor) -> Tensor:
        return x + 0.1 * torch.randn_like(x)


class WritesABuffer(Head):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()), persistent=False)
        self.seen: Tensor

    def before(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return x


class Normalizes(Head):
    """Batch normalization without a module of that name."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(6))
        self.register_buffer("variance", torch.ones(6))

    def before(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, self.mean, self.variance, training=self.training)  # type: ignore[arg-type]


class NeedsABatch(Head):
    """Statistics of the batch alone: there are none of a single sample, which may be a client's last batch."""

    def before(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, training=True)


class Counts(Head):
    calls = 0

    def before(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


Kind = type[nn.RNN] | type[nn.GRU] | type[nn.LSTM]


class Recurrent(nn.Module):
    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.cells, self.head = kind(6, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.cells(x[:, None].expand(-1, 4, -1))
        logits: Tensor = self.head(states[:, -1])
        return logits


@pytest.mark.parametrize("module", [Dropped(), Attentive(), Noisy(), nn.Sequential(nn.Dropout(0.1), nn.Linear(6, 3))])
def test_random_numbers_in_training_are_found(module: nn.Module) -> None:
    module.eval()
    assert draws_in_training(module, X, "it")
    assert module.training


@pytest.mark.parametrize("module", [Head(), nn.Sequential(nn.Dropout(0.0), nn.Linear(6, 3)), Recurrent(nn.LSTM)])
def test_a_module_without_random_numbers_draws_none(module: nn.Module) -> None:
    assert not draws_in_training(module, X, "it")


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (AlwaysNoisy(), "draws random numbers in evaluation too"),
        (WritesABuffer(), "writes seen in its forward pass, as BatchNorm does.* use nn.GroupNorm"),
        (Normalizes(), "fails in training on a batch of shape|writes mean in its forward pass"),
        (NeedsABatch(), r"fails in training on a batch of shape \(1, 6\)"),
        (Counts(), "puts out something else for the same samples"),
    ],
)
def test_what_cannot_be_repeated_is_refused_with_the_reason(module: nn.Module, why: str) -> None:
    with pytest.raises(InvalidExperiment, match=why):
        draws_in_training(module, X, "it")


def test_finding_out_changes_neither_the_module_nor_the_generators() -> None:
    module, noisy = Normalizes(), Noisy()
    state = torch.random.get_rng_state()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(InvalidExperiment):
        draws_in_training(module, X, "it")
    assert all(tensor.equal(before[name]) for name, tensor in module.state_dict().items())
    assert draws_in_training(noisy, X, "it")
    assert torch.random.get_rng_state().equal(state)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_layers_that_put_out_tuples_are_counted(kind: Kind) -> None:
    states = 2 if kind is nn.LSTM else 1
    assert activations(Recurrent(kind), X[:1]) == 4 * 5 + states * 5 + 3
