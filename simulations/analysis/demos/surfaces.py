"""Losses of two weights, with names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Surface:
    """A loss of w = (w1, w2), and where to look at it."""

    about: str
    value: Callable[[Tensor, Tensor], Tensor]
    """The loss at w1 and w2, of any shape."""
    start: tuple[float, float]
    lr: float
    """A rate at which gradient descent makes progress from the start and stays stable."""
    reach: float
    """A good length of a first step; the rate of optimizers whose steps do not depend on the gradient's size."""
    window: tuple[float, float, float, float]
    """Smallest and largest w1, smallest and largest w2 of the picture."""
    minima: tuple[tuple[float, float], ...]
    steps: int = 80
    rho: float = 0.5
    """SAM's radius."""

    def at(self, w: Tensor) -> Tensor:
        """The losses [...] at points [..., 2]."""
        return self.value(w[..., 0], w[..., 1])

    def gradient(self, w: Tensor) -> Tensor:
        """The gradients at points [lanes, 2]."""
        point = w.detach().requires_grad_()
        return torch.autograd.grad(self.at(point).sum(), point)[0]

    def hessian(self, w: Tensor) -> Tensor:
        """[2, 2] at a point [2]."""
        point = w.detach().requires_grad_()
        (slope,) = torch.autograd.grad(self.at(point), point, create_graph=True)
        return torch.stack([torch.autograd.grad(entry, point, retain_graph=True)[0] for entry in slope])


def _two_minima(w1: Tensor, w2: Tensor) -> Tensor:
    sharp = torch.exp(-((w1 + 1) ** 2 + w2**2) / (2 * 0.25**2))
    flat = torch.exp(-((w1 - 1) ** 2 + w2**2) / (2 * 1.2**2))
    return 1.2 - 0.6 * sharp - flat + 0.02 * (w1**2 + w2**2)


SURFACES: Mapping[str, Surface] = {
    "quadratic": Surface(
        "an ill-conditioned quadratic, 1/2 (w1^2 + 25 w2^2): curvatures 1 and 25",
        lambda w1, w2: 0.5 * (w1**2 + 25 * w2**2),
        start=(-4.0, 1.0),
        lr=1 / 25,
        reach=0.2,
        window=(-5, 2, -1.7, 1.7),
        minima=((0.0, 0.0),),
    ),
    "saddle": Surface(
        "a saddle at (0, 0) between two minima, w1^2 - w2^2 + w2^4 / 4",
        lambda w1, w2: w1**2 - w2**2 + 0.25 * w2**4,
        start=(-1.5, 0.01),
        lr=0.2,
        reach=0.1,
        window=(-2, 2, -2.2, 2.2),
        minima=((0.0, 2**0.5), (0.0, -(2**0.5))),
    ),
    "plateau": Surface(
        "a plateau around a hole, 1 - exp(-(w1^2 + 4 w2^2) / 2): gradients vanish far from the minimum",
        lambda w1, w2: 1 - torch.exp(-0.5 * (w1**2 + 4 * w2**2)),
        start=(-2.6, 0.5),
        lr=0.25,
        reach=0.1,
        window=(-3.5, 2, -1.7, 1.7),
        minima=((0.0, 0.0),),
    ),
    "ravine": Surface(
        "Rosenbrock's ravine, (1 - w1)^2 + 100 (w2 - w1^2)^2 (Rosenbrock 1960)",
        lambda w1, w2: (1 - w1) ** 2 + 100 * (w2 - w1**2) ** 2,
        start=(-1.2, 1.0),
        lr=0.002,
        reach=0.03,
        window=(-1.8, 1.8, -0.8, 2.2),
        minima=((1.0, 1.0),),
    ),
    "beale": Surface(
        "Beale's function, (1.5 - w1 + w1 w2)^2 + (2.25 - w1 + w1 w2^2)^2 + (2.625 - w1 + w1 w2^3)^2 (Beale 1958)",
        lambda w1, w2: (1.5 - w1 + w1 * w2) ** 2 + (2.25 - w1 + w1 * w2**2) ** 2 + (2.625 - w1 + w1 * w2**3) ** 2,
        start=(1.0, 1.4),
        lr=0.008,
        reach=0.05,
        window=(-0.5, 4, -1.5, 1.8),
        minima=((3.0, 0.5),),
    ),
    "product": Surface(
        "(w1 w2 - 1)^2, a network of two linear layers: all minima are equally low, the one at (1, 1) is the flattest",
        lambda w1, w2: (w1 * w2 - 1) ** 2,
        start=(0.25, 3.2),
        lr=0.05,
        reach=0.05,
        window=(-0.5, 4, -0.5, 4),
        minima=((1.0, 1.0),),
    ),
    "two-minima": Surface(
        "a sharp minimum near (-1, 0) and a flat, deeper one near (1, 0); from this start between their basins "
        "gradient descent at a small rate ends in the sharp one, and SAM in the flat one",
        _two_minima,
        start=(-1.2, 0.9),
        lr=0.1,
        reach=0.1,
        window=(-2.2, 2.6, -1.6, 2.0),
        minima=((-0.958, 0.0), (0.945, 0.0)),
        steps=200,
        rho=0.2,
    ),
}
