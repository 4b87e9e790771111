"""Gradient and loss over all of a client's data, for algorithms that ask for them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedopt.task import Loss
from fedopt.vectors.layout import Layout


@dataclass(frozen=True)
class FullPass:
    """All of a client's data in batches, and the loss of the model's outputs."""

    batches: Iterable[tuple[Tensor, Tensor]]
    """(inputs, targets) on the model's device; read once a pass."""
    loss: Loss = F.cross_entropy

    def gradient_and_loss(self, model: nn.Module, layout: Layout, x: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient [P] and the mean loss [] at x [P]. The model, its buffers and its gradients end as they were."""
        parameters = dict(model.named_parameters())
        trained = [parameters[name] for name in layout.names]
        before = [tensor.detach().clone() for tensor in (*trained, *model.buffers())]
        gradient, loss, count = torch.zeros_like(x), x.new_zeros(()), 0
        try:
            load_vector(model, layout, x)
            for inputs, targets in self.batches:
                outcome = self.loss(model(inputs), targets)
                parts = torch.autograd.grad(outcome, trained, allow_unused=True, materialize_grads=True)
                gradient += torch.cat([part.reshape(-1) for part in parts]) * len(targets)
                loss += outcome.detach() * len(targets)
                count += len(targets)
        finally:
            with torch.no_grad():
                for tensor, value in zip((*trained, *model.buffers()), before, strict=True):
                    tensor.copy_(value)
        return gradient / count, loss / count


def load_vector(model: nn.Module, layout: Layout, x: Tensor) -> None:
    """Writes x [P] to the model's trained parameters."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in layout.split(x).items():
            parameters[name].copy_(value)
