"""Independent forms of the local optimizers: torch.optim where it has them, else plain transcriptions of the papers.

Each is a torch optimizer over the parameters of one module, whose `step(closure)` evaluates loss and gradients by the
closure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Closure = Callable[[], float]
Rule = Callable[[nn.Parameter, Tensor, dict[str, Any], float], None]


class Plain(torch.optim.Optimizer):
    """Parameter by parameter: theta, gradient and a dict of state, changed in place by a rule."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, rule: Rule) -> None:
        super().__init__(parameters, {"lr": lr})
        self._rule = rule

    def step(self, closure: Closure | None = None) -> None:  # type: ignore[override]
        if closure is not None:
            closure()
        with torch.no_grad():
            for group in self.param_groups:
                for theta in group["params"]:
                    assert theta.grad is not None
                    self._rule(theta, theta.grad.clone(), self.state[theta], group["lr"])


def averaged_gradient(beta: float, decay: float) -> Rule:
    def rule(theta: Tensor, g: Tensor, state: dict[str, Any], lr: float) -> None:
        state["M"] = beta * state.get("M", 0.0) + (1 - beta) * (g + decay * theta)
        theta -= lr * state["M"]

    return rule


def lion(beta1: float, beta2: float, decay: float) -> Rule:
    def rule(theta: Tensor, g: Tensor, state: dict[str, Any], lr: float) -> None:
        m = state.get("m", torch.zeros_like(g))
        c = beta1 * m + (1 - beta1) * g
        theta -= lr * (torch.sign(c) + decay * theta)
        state["m"] = beta2 * m + (1 - beta2) * g

    return rule


def adam_without_correction(beta1: float, beta2: float, eps: float) -> Rule:
    def rule(theta: Tensor, g: Tensor, state: dict[str, Any], lr: float) -> None:
        state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * g
        state["v"] = beta2 * state.get("v", 0.0) + (1 - beta2) * g**2
        theta -= lr * state["m"] / (state["v"].sqrt() + eps)

    return rule


def amsgrad(beta1: float, beta2: float, eps: float) -> Rule:
    def rule(theta: Tensor, g: Tensor, state: dict[str, Any], lr: float) -> None:
        floor = torch.full_like(g, eps**2)
        state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * g
        state["v"] = beta2 * state.get("v", floor) + (1 - beta2) * g**2
        state["largest"] = torch.maximum(state.get("largest", floor), state["v"])
        theta -= lr * state["m"] / state["largest"].sqrt()

    return rule


def lars(momentum: float, trust: float, decay: float, *, skip_vectors: bool) -> Rule:
    def rule(w: Tensor, g: Tensor, state: dict[str, Any], lr: float) -> None:
        ratio = 1.0
        if w.norm() > 0 and g.norm() > 0 and (w.ndim > 1 or not skip_vectors):
            ratio = float(trust * w.norm() / (g.norm() + decay * w.norm()))
        state["v"] = momentum * state.get("v", 0.0) + lr * ratio * (g + decay * w)
        w -= state["v"]

    return rule


class Newton(torch.optim.Optimizer):
    """Solves with the Hessian of autograd; its closure returns the loss itself."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, damping: float) -> None:
        super().__init__(parameters, {"lr": lr})
        self._damping = damping

    def step(self, closure: Callable[[], Tensor] | None = None) -> None:  # type: ignore[override]
        assert closure is not None
        (group,) = self.param_groups
        parameters = group["params"]
        gradients = torch.autograd.grad(closure(), parameters, create_graph=True)
        flat = torch.cat([g.flatten() for g in gradients])
        every = torch.autograd.grad(flat, parameters, torch.eye(len(flat)), is_grads_batched=True)
        hessian = torch.cat([rows.flatten(1) for rows in every], dim=1)
        step = torch.linalg.solve(hessian + self._damping * torch.eye(len(flat)), flat.detach())
        with torch.no_grad():
            for p, part in zip(parameters, torch.split(step, [p.numel() for p in parameters]), strict=True):
                p -= group["lr"] * part.view_as(p)


class Kfac(torch.optim.Optimizer):
    """For an nn.Sequential of linear layers and activations under the cross-entropy: each layer's block is the mean of
    a a^T times the mean of J^T (diag p - p p^T) J over the samples, with the Jacobian J of the logits in its outputs.
    The blocks are solved with as dense matrices."""

    def __init__(self, module: nn.Module, lr: float, damping: float) -> None:
        super().__init__(module.parameters(), {"lr": lr})
        self._layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
        self._module, self._damping = module, damping
        self.x = torch.zeros(0)
        """The samples of the next step."""

    def step(self, closure: Closure | None = None) -> None:  # type: ignore[override]
        assert closure is not None
        closure()
        seen: list[tuple[Tensor, Tensor]] = []
        handles = [layer.register_forward_hook(lambda _, a, z: seen.append((a[0], z))) for layer in self._layers]
        logits = self._module(self.x)
        for handle in handles:
            handle.remove()
        p = logits.detach().softmax(1)
        middle = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
        outputs = [z for _, z in seen]
        columns = [torch.autograd.grad(logits[:, c].sum(), outputs, retain_graph=True) for c in range(p.shape[1])]
        with torch.no_grad():
            for place, (layer, (a, _)) in enumerate(zip(self._layers, seen, strict=True)):
                jacobian = torch.stack([column[place] for column in columns], dim=1)  # [B, classes, outputs]
                inner = torch.einsum("bci,bcd,bdj->ij", jacobian, middle, jacobian) / len(a)
                ones = torch.cat([a, torch.ones(len(a), 1)], dim=1)
                block = torch.kron(inner.contiguous(), (ones.T @ ones / len(a)).contiguous())
                assert layer.weight.grad is not None
                assert layer.bias.grad is not None
                gradient = torch.cat([layer.weight.grad, layer.bias.grad[:, None]], dim=1)
                damped = block + self._damping * torch.eye(len(block))
                step = torch.linalg.solve(damped, gradient.flatten()).view_as(gradient)
                layer.weight.sub_(self.param_groups[0]["lr"] * step[:, :-1])
                layer.bias.sub_(self.param_groups[0]["lr"] * step[:, -1])


class Table(torch.optim.Optimizer):
    """SAG or SAGA. `sample` is set to the number of the sample that the next step is of, `samples` to how many the
    client has."""

    sample = samples = 0

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, *, unbiased: bool) -> None:
        super().__init__(parameters, {"lr": lr})
        self._unbiased = unbiased
        self._table: dict[int, list[Tensor]] = {}

    def step(self, closure: Closure | None = None) -> None:  # type: ignore[override]
        assert closure is not None
        closure()
        (group,) = self.param_groups
        for place, p in enumerate(group["params"]):
            zero = torch.zeros_like(p)
            g, old = p.grad.clone(), self._table[self.sample][place] if self.sample in self._table else zero
            mean = sum((row[place] for row in self._table.values()), start=zero) / self.samples
            if not self._unbiased:
                others = [row[place] for sample, row in self._table.items() if sample != self.sample]
                direction = sum(others, start=g) / (len(others) + 1)
            else:
                direction = g - old + mean
            with torch.no_grad():
                p -= group["lr"] * direction
        self._table[self.sample] = [p.grad.clone() for p in group["params"]]


def _parameters(optimizer: torch.optim.Optimizer) -> list[Any]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


class Larc(torch.optim.Optimizer):
    """Gives another optimizer scaled gradients, as apex does."""

    def __init__(self, base: torch.optim.Optimizer, trust: float, decay: float, *, clip: bool) -> None:
        super().__init__(_parameters(base), {})
        self._base, self._trust, self._decay, self._clip = base, trust, decay, clip

    def step(self, closure: Closure | None = None) -> None:  # type: ignore[override]
        assert closure is not None
        closure()
        with torch.no_grad():
            for p, lr in ((p, group["lr"]) for group in self._base.param_groups for p in group["params"]):
                if p.norm() != 0 and p.grad.norm() != 0:
                    adaptive = self._trust * p.norm() / (p.grad.norm() + p.norm() * self._decay)
                    if self._clip:
                        adaptive = min(adaptive / lr, 1)
                    p.grad += self._decay * p
                    p.grad *= adaptive
        self._base.step()


class Climbing(torch.optim.Optimizer):
    """SAM around another optimizer, or ASAM with `eta`: its gradient at theta + rho T^2 g / |T g|, with T = 1 or
    |theta| + eta."""

    def __init__(self, base: torch.optim.Optimizer, rho: float, eta: float | None = None) -> None:
        super().__init__(_parameters(base), {})
        self._base, self._rho, self._eta = base, rho, eta

    def step(self, closure: Closure | None = None) -> None:  # type: ignore[override]
        assert closure is not None
        closure()
        thetas = _parameters(self._base)
        before = [p.detach().clone() for p in thetas]
        with torch.no_grad():
            scales = [torch.ones_like(p) if self._eta is None else p.abs() + self._eta for p in thetas]
            norm = torch.cat([(t * p.grad).flatten() for t, p in zip(scales, thetas, strict=True)]).norm()
            for t, p in zip(scales, thetas, strict=True):
                p += self._rho * t**2 * p.grad / norm
        closure()
        with torch.no_grad():
            for p, old in zip(thetas, before, strict=True):
                p.copy_(old)
        self._base.step()


class Lookahead(torch.optim.Optimizer):
    """The paper's: slow weights phi follow the fast ones after k steps of another optimizer."""

    def __init__(self, base: torch.optim.Optimizer, k: int, alpha: float) -> None:
        super().__init__(_parameters(base), {})
        self._base, self._k, self._alpha, self._steps = base, k, alpha, 0
        self._phi = [p.detach().clone() for p in _parameters(base)]

    def step(self, closure: Closure | None = None) -> None:  # type: ignore[override]
        self._base.step(closure)
        self._steps += 1
        if self._steps % self._k == 0:
            with torch.no_grad():
                for p, phi in zip(_parameters(self._base), self._phi, strict=True):
                    phi.copy_(phi + self._alpha * (p - phi))
                    p.copy_(phi)


class LookAheadNesterov(torch.optim.Optimizer):
    """u <- momentum u - lr g(theta + momentum u),  theta <- theta + u, as Sutskever et al. write it."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float, decay: float) -> None:
        super().__init__(parameters, {"lr": lr})
        self._momentum, self._decay = momentum, decay

    def step(self, closure: Closure | None = None) -> None:  # type: ignore[override]
        assert closure is not None
        (group,) = self.param_groups
        thetas = group["params"]
        steps = [self.state[theta].get("u", torch.zeros_like(theta)) for theta in thetas]
        before = [theta.detach().clone() for theta in thetas]
        with torch.no_grad():
            for theta, u in zip(thetas, steps, strict=True):
                theta += self._momentum * u
        closure()
        with torch.no_grad():
            for theta, old, u in zip(thetas, before, steps, strict=True):
                new = self._momentum * u - group["lr"] * (theta.grad + self._decay * theta)
                self.state[theta]["u"] = new
                theta.copy_(old + new)


@contextmanager
def scalars_in_float64() -> Iterator[None]:
    """torch makes some numbers in an optimizer's state, as ASGD's rate, in the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class Averaging(torch.optim.ASGD):
    """torch's, whose `finish` puts the means in the place of the iterates."""

    def finish(self) -> None:
        with torch.no_grad():
            for group in self.param_groups:
                for theta in group["params"]:
                    theta.copy_(self.state[theta]["ax"])


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest entry."""
    worst = float((found - expected).abs().max() / expected.abs().max())
    return worst if math.isfinite(worst) else math.inf
