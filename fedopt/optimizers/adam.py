"""Adam: Kingma, Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015 (arXiv:1412.6980), Algorithm 1.

    m <- beta_1 m + (1 - beta_1) g,   v <- beta_2 v + (1 - beta_2) g^2
    theta <- theta - lr * (m / (1 - beta_1^t)) / (sqrt(v / (1 - beta_2^t)) + eps)

Weight decay is added to g, as in torch.optim.Adam. Lanes call the kernel of torch's `fused=True` directly, with one
pass over memory: the Python code of torch.optim costs several times as much as a step of a small model.

Where v goes on from the rounds before and m starts anew (`local.state` = average-v or block-v), t differs: m is divided
by 1 - beta_1^k with k the steps of this round, v by 1 - beta_2^t with t the steps since v was zero. For these are the
sums of the weights of the gradients in m and in v.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from fedopt.optimizers.base import Decay, Gradient, LaneOptimizer, Optimizer, is_row, subtract
from fedopt.schedules.base import Rate, Rates, RowRates
from fedopt.vectors.layout import RowLayout
from fedopt.vectors.rows import ROW_UNIT

LARGEST = "max_exp_avg_sq"


class Adam(Optimizer):
    betas: tuple[Decay, Decay] = Field((0.9, 0.999), strict=False)
    """Decay rates of the running means of the gradient and of its square."""
    eps: float = Field(1e-8, gt=0)
    """Added to the denominator of the step."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay: added to the gradient by adam, applied to the weights themselves by adamw."""
    bias_correction: bool = True
    """Whether to divide the running means by the sum of their weights, which is small in the first steps."""
    amsgrad: bool = False
    """Whether to divide by the largest running mean of squares so far, as torch.optim.Adam(amsgrad=True) does. The
    optimizer amsgrad is the paper's, without bias correction."""

    def build(self, theta: Tensor, layout: RowLayout) -> LaneOptimizer:
        kernel = getattr(torch, "_fused_adamw_" if self.is_decoupled else "_fused_adam_", None)
        if kernel is None or not self.bias_correction or theta.device.type not in ("cpu", "cuda"):
            return AdamLanes(theta, self)
        return FusedAdamLanes(theta, self, kernel)

    @property
    def usual_lr(self) -> float:
        return 0.001

    @property
    def decays_weights(self) -> bool:
        return self.weight_decay > 0

    @property
    def moment_names(self) -> tuple[str, ...]:
        return "exp_avg", *self.second_moment_names

    @property
    def second_moment_names(self) -> tuple[str, ...]:
        return ("exp_avg_sq", LARGEST, "step") if self.amsgrad else ("exp_avg_sq", "step")

    @property
    def vectors_touched(self) -> int:
        return 3 if self.amsgrad else 2

    def torch_optimizer(self, parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer | None:
        if not self.bias_correction:
            return None
        kind = torch.optim.AdamW if self.is_decoupled else torch.optim.Adam
        return kind(parameters, lr, self.betas, self.eps, self.weight_decay, amsgrad=self.amsgrad)


class AdamLanes(LaneOptimizer):
    """Adam in elementary operations, for devices without the fused kernel."""

    def __init__(self, theta: Tensor, settings: Adam) -> None:
        super().__init__(theta)
        self._settings = settings
        self._means, self._squares = torch.zeros_like(theta), torch.zeros_like(theta)
        self._largest = torch.zeros_like(theta) if settings.amsgrad else None
        self._counts = torch.zeros(len(theta), device=theta.device)
        """Steps of each lane in the means, t in the paper, [lanes]."""
        self._before = theta.new_zeros(len(theta))
        """Steps that only the squares have seen, a mean over clients, [lanes]."""
        self._of_active = self._means, self._squares, self._counts

    def begin(self, lanes: int, rates: Rates) -> None:
        super().begin(lanes, rates)
        self._set_active(lanes)
        for tensor in (*self._of_active, self._before):
            tensor.zero_()
        if self._largest is not None:
            self._largest[:lanes].zero_()

    def shrink(self, lanes: int) -> None:
        super().shrink(lanes)
        self._set_active(lanes)

    def _set_active(self, lanes: int) -> None:
        self._of_active = self._means[:lanes], self._squares[:lanes], self._counts[:lanes]

    @property
    def moments(self) -> Mapping[str, Tensor]:
        """`step` is the number of steps in a lane's squares, the same at every entry of its row."""
        lanes = self.lanes
        counts = self._counts[:lanes] + self._before[:lanes]
        steps = counts[:, None].to(self.theta).expand(lanes, self.theta.shape[1])
        largest = {} if self._largest is None else {LARGEST: self._largest[:lanes]}
        return {"exp_avg": self._means[:lanes], "exp_avg_sq": self._squares[:lanes], **largest, "step": steps}

    def load_moments(self, moments: Mapping[str, Tensor]) -> None:
        self._means[: self.lanes].copy_(moments["exp_avg"])
        self._load_squares(moments)
        self._counts[: self.lanes].copy_(moments["step"][:, 0])

    def load_second_moments(self, moments: Mapping[str, Tensor]) -> None:
        self._load_squares(moments)
        self._before[: self.lanes].copy_(moments["step"][:, 0])

    def _load_squares(self, moments: Mapping[str, Tensor]) -> None:
        self._squares[: self.lanes].copy_(moments["exp_avg_sq"])
        if self._largest is not None:
            self._largest[: self.lanes].copy_(moments[LARGEST])

    def step(self, gradient: Gradient) -> None:
        found = gradient()
        counts = self._of_active[2]
        counts += 1
        self._update(found, *self._of_active, self.next_rate())

    def _update(self, gradient: Tensor, means: Tensor, squares: Tensor, counts: Tensor, rate: Rate) -> None:
        (beta1, beta2), decay = self._settings.betas, self._settings.weight_decay
        if self._settings.is_decoupled:
            subtract(self.active, rate, decay * self.active)
        elif decay:
            gradient = gradient.add(self.active, alpha=decay)
        means.lerp_(gradient, 1 - beta1)
        squares.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        if self._largest is not None:
            largest = self._largest[: len(self.active)]
            squares = torch.maximum(largest, squares, out=largest)
        if not self._settings.bias_correction:
            subtract(self.active, rate, means / squares.sqrt().add_(self._settings.eps))
            return
        # 1 - beta^t without a difference: float32 has too few digits for beta^t near 1.
        wide = ROW_UNIT // means.element_size() if is_row(rate) else 1
        bias1, bias2 = (
            -torch.expm1(steps.to(means)[:, None].expand(-1, wide) * _log(beta))[:, :1]
            for steps, beta in ((counts, beta1), (counts + self._before[: len(counts)], beta2))
        )
        subtract(self.active, rate, means / bias1 / (squares / bias2).sqrt_().add_(self._settings.eps))


class FusedAdamLanes(AdamLanes):
    """Adam by torch's fused kernel."""

    def __init__(self, theta: Tensor, settings: Adam, kernel: Callable[..., object]) -> None:
        super().__init__(theta, settings)
        self._kernel = kernel
        # The kernel takes one step count a tensor, so lanes with different counts go in row by row. On a GPU many
        # tensors take no more time than one.
        self._always_by_row = theta.device.type == "cuda"
        self._by_row = self._always_by_row
        self._two_counts = False
        self._row_rates: RowRates | None = None

    def begin(self, lanes: int, rates: Rates) -> None:
        super().begin(lanes, rates)
        self._by_row, self._two_counts = self._always_by_row, False
        self._row_rates = rates if isinstance(rates, RowRates) else None

    def load_second_moments(self, moments: Mapping[str, Tensor]) -> None:
        super().load_second_moments(moments)
        self._two_counts = True

    def load_moments(self, moments: Mapping[str, Tensor]) -> None:
        super().load_moments(moments)
        self._by_row = self._always_by_row or len(set(self._counts[: self.lanes].tolist())) > 1

    def _update(self, gradient: Tensor, means: Tensor, squares: Tensor, counts: Tensor, rate: Rate) -> None:
        if self._two_counts or (is_row(rate) and self._row_rates is None):  # the kernel takes one count, and one rate
            super()._update(gradient, means, squares, counts, rate)
            return
        tensors = [self.active, gradient, means, squares]
        if self._largest is not None:
            tensors.append(self._largest[: len(self.active)])
        if self._row_rates is not None:
            for first, end, own in self._row_rates.of_spans(self._step - 1):
                self._call([[row[first:end] for row in tensor] for tensor in tensors], counts.unbind(), own)
        elif isinstance(rate, Tensor) and rate.dim():
            for row, own in enumerate(rate.flatten()):
                self._call([[tensor[row]] for tensor in tensors], [counts[row]], own)
        elif self._by_row:
            self._call([tensor.unbind() for tensor in tensors], counts.unbind(), rate)
        else:
            self._call([[tensor] for tensor in tensors], [counts[0]], rate)

    def _call(self, tensors: Sequence[Sequence[Tensor]], counts: Sequence[Tensor], rate: Rate) -> None:
        """Steps lists of theta, gradient, means, squares and the largest squares, if there are any, with one count for
        each entry of the lists."""
        settings = self._settings
        self._kernel(
            *tensors,
            *([] if settings.amsgrad else [[]]),
            counts,
            lr=rate,
            beta1=settings.betas[0],
            beta2=settings.betas[1],
            weight_decay=settings.weight_decay,
            eps=settings.eps,
            amsgrad=settings.amsgrad,
            maximize=False,
        )


def _log(beta: float) -> float:
    return math.log(beta) if beta > 0 else -math.inf
