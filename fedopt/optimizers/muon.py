"""Muon: Jordan, Jin, Boza, You, Cesista, Newhouse, Bernstein, "Muon: An optimizer for hidden layers in neural
networks", 2024 (kellerjordan.github.io/posts/muon), as in torch.optim.Muon.

    M <- momentum M + (1 - momentum) G,   U = momentum M + (1 - momentum) G (nesterov) or U = M
    X = U / ||U||_F,   then newton_schulz times:  A = X X^T,  X <- a X + (b A + c A^2) X
    theta <- theta - lr weight_decay theta - lr r X

with (a, b, c) = (3.4445, -4.7750, 2.0315), for matrices of at most as many rows as columns, others transposed. X has
nearly the singular vectors of U and singular values between 0.7 and 1.2. The factor r follows from the m rows and n
columns of theta: sqrt(max(1, m / n)) under "original".

A convolution is a matrix of one row per output channel. Vectors and scalars are no matrices: AdamW steps them. Products
are computed lane by lane, since batched ones round differently with the number of lanes, and in the dtype of theta:
the published code rounds them to bfloat16.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from fedopt.optimizers.adamw import AdamW
from fedopt.optimizers.base import Decay, Gradient, LaneOptimizer, Optimizer, is_row, subtract
from fedopt.schedules.base import Rate, Rates
from fedopt.vectors.layout import RowLayout
from fedopt.vectors.rows import aligned

COEFFICIENTS = 3.4445, -4.7750, 2.0315
SMALLEST_NORM = 1e-7


class Muon(Optimizer):
    momentum: Decay = 0.95
    """The momentum factor of matrices."""
    nesterov: bool = True
    """Whether to take Nesterov's momentum."""
    newton_schulz: int = Field(5, ge=0)
    """Iterations towards the orthogonal matrix. With 0, the momentum is divided by its norm and nothing else."""
    scale: Literal["original", "match_rms_adamw", "spectral_unclamped"] = "original"
    """The factor r of an m x n matrix's step: sqrt(max(1, m / n)), 0.2 sqrt(max(m, n)), which gives steps of AdamW's
    size, or sqrt(m / n). The names are those of torch.optim.Muon."""
    ends: Literal["muon", "adamw"] = "muon"
    """What steps the first and the last matrix of the model, which are often an embedding and a classifier."""
    adamw_rate: float = Field(0.1, gt=0)
    """The factor of the learning rate in steps of AdamW: local.lr and the schedule give Muon's rate, and AdamW steps
    at this times it. 1 suits match_rms_adamw."""
    betas: tuple[Decay, Decay] = Field((0.9, 0.999), strict=False)
    """AdamW's decay rates of the running means of the gradient and of its square."""
    eps: float = Field(1e-8, gt=0)
    """Added to the denominator of AdamW's step."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay, apart from the gradient: a step shrinks a parameter by this times its learning rate, without r."""

    is_decoupled: ClassVar[bool] = True

    def build(self, theta: Tensor, layout: RowLayout) -> LaneOptimizer:
        return MuonLanes(theta, layout, self)

    def matrices(self, layout: RowLayout) -> list[str]:
        """The names of the parameters that Muon steps; AdamW steps the others."""
        shapes = zip(layout.layout.names, layout.layout.shapes, strict=True)
        names = [name for name, shape in shapes if len(shape) > 1]
        return names if self.ends == "muon" else names[1:-1]

    @property
    def decays_weights(self) -> bool:
        return self.weight_decay > 0

    @property
    def takes_group_decay(self) -> bool:
        return False  # AdamW's entries decay at another rate than matrices

    @property
    def moment_names(self) -> tuple[str, ...]:
        return "momentum", "exp_avg_sq", "step"

    @property
    def vectors_touched(self) -> int:
        return 4


class MuonLanes(LaneOptimizer):
    recordable = False

    def __init__(self, theta: Tensor, layout: RowLayout, settings: Muon) -> None:
        super().__init__(theta)
        self._settings, self._layout = settings, layout
        self._matrices = settings.matrices(layout)
        self._momentum, self._squares, self._direction = (torch.zeros_like(theta) for _ in range(3))
        places = layout.views(torch.arange(layout.width, device=theta.device))
        others = [place.flatten() for name, place in places.items() if name not in self._matrices]
        self._places = torch.cat(others) if others else torch.zeros(0, dtype=torch.int64, device=theta.device)
        """Of the entries that AdamW steps, in a row."""
        self._count = len(self._places)
        self._others, self._given = (theta.new_zeros(len(theta), aligned(self._count, theta)) for _ in range(2))
        """Those entries and their gradients, with zeros behind them. Rows that end in the middle of a vector register
        would make the last bits of a lane depend on the lanes beside it."""
        adamw = AdamW(betas=settings.betas, eps=settings.eps, weight_decay=settings.weight_decay)
        self._adamw = adamw.build(self._others, layout)

    def begin(self, lanes: int, rates: Rates) -> None:
        super().begin(lanes, rates)
        self._momentum[:lanes].zero_()
        self._adamw.begin(lanes, _OfAdamW(rates, self._settings.adamw_rate, self._of_others))

    def shrink(self, lanes: int) -> None:
        super().shrink(lanes)
        self._adamw.shrink(lanes)

    def step(self, gradient: Gradient) -> None:
        found, settings, active = gradient(), self._settings, len(self.active)
        if self._count:
            for rows, values in ((self._others, self.active), (self._given, found)):
                rows[:active, : self._count] = values[:, self._places]
            self._adamw.step(_Given(self._given[:active]))
        momentum, direction = self._momentum[:active], self._direction[:active]
        momentum.lerp_(found, 1 - settings.momentum)
        steps = found.lerp(momentum, settings.momentum) if settings.nesterov else momentum
        pairs = self._layout.views(steps), self._layout.views(direction)
        for name in self._matrices:
            for step, into in zip(pairs[0][name], pairs[1][name], strict=True):
                matrix = step.flatten(1)
                factor = _factor(settings, *matrix.shape)
                into.copy_(factor * newton_schulz(matrix, settings.newton_schulz).view_as(step))
        if settings.weight_decay:
            direction = direction.add(self.active, alpha=settings.weight_decay)
        subtract(self.active, self.next_rate(), direction)
        self.active[:, self._places] = self._others[:active, : self._count]

    @property
    def moments(self) -> Mapping[str, Tensor]:
        """`momentum` and `exp_avg_sq` are AdamW's at the entries that it steps; `step` is its count, at all entries."""
        of_others, lanes = self._adamw.moments, self.lanes
        self._momentum[:lanes, self._places] = of_others["exp_avg"][:, : self._count]
        self._squares[:lanes, self._places] = of_others["exp_avg_sq"][:, : self._count]
        counts = of_others["step"][:, :1] if self._count else self.theta.new_zeros(lanes, 1)
        step = counts.expand(lanes, self.theta.shape[1])
        return {"momentum": self._momentum[:lanes], "exp_avg_sq": self._squares[:lanes], "step": step}

    def load_moments(self, moments: Mapping[str, Tensor]) -> None:
        self._momentum[: self.lanes].copy_(moments["momentum"])
        if self._count:
            own = {"exp_avg": "momentum", "exp_avg_sq": "exp_avg_sq", "step": "step"}
            self._adamw.load_moments({name: self._of_others(moments[ours]) for name, ours in own.items()})

    def _of_others(self, rows: Tensor) -> Tensor:
        """The entries that AdamW steps, with zeros behind them."""
        found = rows.new_zeros(len(rows), self._others.shape[1])
        found[:, : self._count] = rows[:, self._places]
        return found


def newton_schulz(matrix: Tensor, steps: int) -> Tensor:
    """An almost orthogonal matrix of the same singular vectors, by `steps` iterations."""
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / torch.linalg.vector_norm(x).clamp(min=SMALLEST_NORM)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    orthogonal: Tensor = x.T if tall else x
    return orthogonal


def _factor(settings: Muon, rows: int, columns: int) -> float:
    if settings.scale == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    ratio = rows / columns
    return math.sqrt(ratio if settings.scale == "spectral_unclamped" else max(1.0, ratio))


class _OfAdamW(Rates):
    """Rates times a factor, of the entries that `of_others` takes where entries have rates of their own."""

    def __init__(self, rates: Rates, factor: float, of_others: Callable[[Tensor], Tensor]) -> None:
        super().__init__((), torch.float64)
        self._rates, self._factor, self._of_others = rates, factor, of_others

    def at(self, step: int) -> Rate:
        rate: Rate = self._rates.at(step) * self._factor
        return self._of_others(rate) if is_row(rate) else rate


class _Given(Gradient):
    """A gradient that has been evaluated."""

    def __init__(self, gradient: Tensor) -> None:
        self._gradient = gradient

    def __call__(self) -> Tensor:
        return self._gradient

    def add_to(self, target: Tensor, keep: float, scale: float) -> None:
        target[: len(self._gradient)].mul_(keep).add_(self._gradient, alpha=scale)

    def add_to_theta(self, scale: float) -> None:
        raise NotImplementedError("AdamW asks for the gradient itself")
