"""The optimizers of the page: names, formulas, settings, and fedopt's optimizer that updates.js has to follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from fedopt.optimizers.adagrad import Adagrad
from fedopt.optimizers.adam import Adam
from fedopt.optimizers.amsgrad import Amsgrad
from fedopt.optimizers.asam import Asam
from fedopt.optimizers.asgd import Asgd
from fedopt.optimizers.averaged_gradient import AveragedGradient
from fedopt.optimizers.base import Optimizer
from fedopt.optimizers.larc import Larc
from fedopt.optimizers.lars import Lars
from fedopt.optimizers.lbfgs import Lbfgs
from fedopt.optimizers.lion import Lion
from fedopt.optimizers.lookahead import Lookahead
from fedopt.optimizers.nadam import NAdam
from fedopt.optimizers.newton import Newton
from fedopt.optimizers.radam import RAdam
from fedopt.optimizers.rmsprop import RmsProp
from fedopt.optimizers.sam import Sam
from fedopt.optimizers.sgd import Sgd
from simulations.analysis.demos.surfaces import Surface

Settings = Mapping[str, float]


@dataclass(frozen=True)
class Slider:
    """A setting's bounds and how its slider moves."""

    label: str
    low: float
    high: float
    scale: Literal["linear", "log", "decay", "factor", "whole"]
    """decay: by powers of ten below 1, so that 0.9, 0.99 and 0.999 are as far apart as 0 and 0.9. factor: bounds are
    factors of the default, and the slider moves by powers of ten."""


SLIDERS: Mapping[str, Slider] = {
    "lr": Slider("rate lr", 1 / 100, 30, "factor"),
    "momentum": Slider("momentum β", 0, 0.999, "decay"),
    "beta": Slider("decay β", 0, 0.999, "decay"),
    "beta1": Slider("decay β₁", 0, 0.999, "decay"),
    "beta2": Slider("decay β₂", 0, 0.9999, "decay"),
    "smoothing": Slider("decay β", 0, 0.9999, "decay"),
    "rho": Slider("radius ρ", 0, 2, "linear"),
    "sync_period": Slider("fast steps k", 1, 20, "whole"),
    "slow_step": Slider("slow step α", 0.05, 1, "linear"),
    "trust": Slider("trust τ", 1e-4, 1, "log"),
    "damping": Slider("damping δ", 1e-6, 100, "log"),
}


@dataclass(frozen=True)
class Choice:
    """An optimizer. `settings` are its defaults on a surface, the rate `lr` among them; `optimizer` is fedopt's with
    the others of them."""

    title: str
    formula: str
    settings: Callable[[Surface], Settings]
    optimizer: Callable[..., Optimizer]
    exact: bool = False
    """Whether it takes exact gradients alone."""


def _adaptive(surface: Surface) -> Settings:
    return {"lr": surface.reach, "beta1": 0.9, "beta2": 0.999}


def _with_momentum(surface: Surface) -> Settings:
    return {"lr": surface.lr, "momentum": 0.9}


CHOICES: Mapping[str, Choice] = {
    "gd": Choice("gradient descent (SGD)", "w ← w − lr g", lambda s: {"lr": s.lr}, Sgd),
    "heavy-ball": Choice("heavy ball", "v ← β v + g,  w ← w − lr v", _with_momentum, Sgd),
    "nesterov": Choice(
        "Nesterov, torch's form",
        "v ← β v + g,  w ← w − lr (g + β v)",
        _with_momentum,
        lambda momentum: Sgd(momentum=momentum, nesterov=momentum > 0),
    ),
    "nesterov-look-ahead": Choice(
        "Nesterov, look-ahead",
        "v ← β v + g(w − lr β v),  w ← w − lr v",
        _with_momentum,
        lambda momentum: Sgd(momentum=momentum, nesterov=True, nesterov_form="look-ahead") if momentum else Sgd(),
    ),
    "averaged-gradient": Choice(
        "averaged gradient", "m ← β m + (1 − β) g,  w ← w − lr m", lambda s: {"lr": s.lr, "beta": 0.9}, AveragedGradient
    ),
    "asgd": Choice("averaged iterates (ASGD)", "z ← z − lr g(z),  w ← mean of all z", lambda s: {"lr": s.lr}, Asgd),
    "lookahead": Choice(
        "Lookahead around SGD",
        "w ← w − lr g;  after every k steps  φ ← φ + α (w − φ),  w ← φ",
        lambda s: {"lr": s.lr, "sync_period": 5, "slow_step": 0.5},
        lambda sync_period, slow_step: Lookahead(base=Sgd(), sync_period=int(sync_period), slow_step=slow_step),
    ),
    "adagrad": Choice("Adagrad", "s ← s + g²,  w ← w − lr g / √s", lambda s: {"lr": 4 * s.reach}, Adagrad),
    "rmsprop": Choice(
        "RMSProp",
        "v ← β v + (1 − β) g²,  w ← w − lr g / √v",
        lambda s: {"lr": s.reach, "smoothing": 0.99},
        RmsProp,
    ),
    "adam": Choice(
        "Adam",
        "m ← β₁ m + (1 − β₁) g,  v ← β₂ v + (1 − β₂) g²,  w ← w − lr m̂ / √v̂;  m̂ = m / (1 − β₁ᵗ), v̂ = v / (1 − β₂ᵗ)",
        _adaptive,
        lambda beta1, beta2: Adam(betas=(beta1, beta2)),
    ),
    "amsgrad": Choice(
        "AMSGrad",
        "m, v as in Adam,  u ← max(u, v),  w ← w − lr m / √u",
        _adaptive,
        lambda beta1, beta2: Amsgrad(betas=(beta1, beta2)),
    ),
    "nadam": Choice(
        "NAdam",
        "m, v as in Adam,  w ← w − lr (μ′ m̂ + (1 − μ) ĝ) / √v̂;  μ rises from β₁/2 to β₁",
        _adaptive,
        lambda beta1, beta2: NAdam(betas=(beta1, beta2)),
    ),
    "radam": Choice(
        "RAdam",
        "m, v as in Adam,  w ← w − lr r m̂ / √v̂;  in the first steps w ← w − lr m̂",
        _adaptive,
        lambda beta1, beta2: RAdam(betas=(beta1, beta2)),
    ),
    "lion": Choice(
        "Lion",
        "w ← w − lr sign(β₁ m + (1 − β₁) g),  m ← β₂ m + (1 − β₂) g",
        lambda s: {"lr": s.reach / 2, "beta1": 0.9, "beta2": 0.99},
        lambda beta1, beta2: Lion(betas=(beta1, beta2)),
    ),
    "sam": Choice(
        "SAM",
        "w ← w − lr g(w + ρ g / |g|)",
        lambda s: {"lr": s.lr, "rho": s.rho},
        lambda rho: Sam(base=Sgd(), rho=rho),
    ),
    "asam": Choice(
        "ASAM",
        "w ← w − lr g(w + ρ T² g / |T g|),  T = |w| + 0.01",
        lambda s: {"lr": s.lr, "rho": s.rho},
        lambda rho: Asam(base=Sgd(), rho=rho),
    ),
    "larc": Choice(
        "LARC",
        "w ← w − min(lr, τ |w| / |g|) g",
        lambda s: {"lr": s.lr, "trust": 0.02},
        lambda trust: Larc(base=Sgd(), trust=trust),
    ),
    "lars": Choice(
        "LARS",
        "w ← w − lr τ |w| g / |g|",
        lambda s: {"lr": 20.0, "trust": 0.001},
        Lars,
    ),
    "newton": Choice(
        "Newton",
        "w ← w − lr (H + δ I)⁻¹ g,  H the Hessian at w",
        lambda s: {"lr": 1.0, "damping": 1e-6},
        Newton,
    ),
    "lbfgs": Choice("L-BFGS", "w ← w − lr B g,  B ≈ H⁻¹ from the last steps", lambda s: {"lr": 1.0}, Lbfgs, exact=True),
}
