"""The plain loop that a user would write: nn.Module, torch.optim, tensors in memory, one client after another.

It shares only the minibatch plans with the engine. `fedopt bench` measures the engine against it, and tests use it as
an independent implementation to compare lanes with.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedopt.data.batches import BatchPlan
from fedopt.optimizers.local import LocalSettings
from fedopt.optimizers.sam import Sam


def torch_optimizer(local: LocalSettings, module: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of torch.optim that [local] selects, over the module's parameters."""
    optimizer = local.optimizer.torch_optimizer(module.parameters(), local.lr)
    assert optimizer is not None, f"torch.optim has no {local.optimizer.name}"
    return optimizer


def train_plainly(
    module: nn.Module, local: LocalSettings, x: Tensor, y: Tensor, batches: Sequence[Tensor]
) -> nn.Module:
    """A copy of the module after one step on each batch of sample numbers."""
    module = copy.deepcopy(module)
    optimizer = torch_optimizer(local, module)
    for batch in batches:
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(module(x[batch]), y[batch]))
        if local.clip is not None:
            nn.utils.clip_grad_norm_(module.parameters(), local.clip)
        optimizer.step()
    return module


def sam_plainly(module: nn.Module, local: LocalSettings, x: Tensor, y: Tensor, batches: Sequence[Tensor]) -> nn.Module:
    """SAM with the Euclidean norm, as in its paper, around an optimizer of torch.optim."""
    module = copy.deepcopy(module)
    assert isinstance(local.optimizer, Sam)
    rho, optimizer = local.optimizer.rho, torch_optimizer(local, module)
    parameters = list(module.parameters())
    for batch in batches:
        gradients = torch.autograd.grad(F.cross_entropy(module(x[batch]), y[batch]), parameters)
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
        before = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            for p, g in zip(parameters, gradients, strict=True):
                p.add_(g * (rho / norm))
        gradients = torch.autograd.grad(F.cross_entropy(module(x[batch]), y[batch]), parameters)
        with torch.no_grad():
            for p, old, g in zip(parameters, before, gradients, strict=True):
                p.copy_(old)
                p.grad = g
        optimizer.step()
    return module


def scaffold_plainly(
    module: nn.Module,
    local: LocalSettings,
    x: Tensor,
    y: Tensor,
    batches: Sequence[Tensor],
    c: Sequence[Tensor],
    c_i: Sequence[Tensor],
) -> tuple[nn.Module, list[Tensor]]:
    """The module after steps on g - c_i + c, and the mean of the g, which is the client's next control."""
    module = copy.deepcopy(module)
    optimizer = torch_optimizer(local, module)
    means = [torch.zeros_like(p) for p in module.parameters()]
    for batch in batches:
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(module(x[batch]), y[batch]))
        with torch.no_grad():
            for p, mean, server, own in zip(module.parameters(), means, c, c_i, strict=True):
                assert p.grad is not None
                mean += p.grad
                p.grad += server - own
        optimizer.step()
    return module, [mean.div_(len(batches)) for mean in means]


def batches_of(plan: BatchPlan, indices: np.ndarray) -> list[Tensor]:
    """The plan's minibatches as sample indices, without padding."""
    rows = zip(plan.positions, plan.counts, strict=True)
    return [torch.from_numpy(indices[row[:count]]) for row, count in rows]
