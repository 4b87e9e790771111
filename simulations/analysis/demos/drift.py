"""Client drift in the plane: two clients with quadratic losses pull the model towards their own minima.

FedAvg stays where the clients' displacements cancel, sum_i (I - (I - lr A_i)^K) (x - t_i) = 0. That is the optimum for
K = 1 local step, and moves to the mean of the clients' minima t_i as K grows, since (I - lr A_i)^K vanishes. FedProx
stays nearer, SCAFFOLD and FedDyn reach the optimum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedopt.algorithms.base import Algorithm
from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.feddyn import FedDyn
from fedopt.algorithms.fedprox import FedProx
from fedopt.algorithms.scaffold import Scaffold
from simulations.analysis.demos.contours import draw_contours
from simulations.analysis.demos.quadratic_clients import QuadraticClients
from simulations.analysis.result import Result, Value
from simulations.report.style import COLORS, DASHES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLIENTS = QuadraticClients(
    torch.tensor([[[4.0, 0.0], [0.0, 0.5]], [[0.5, 0.0], [0.0, 2.0]]], dtype=torch.float64),
    torch.tensor([[-1.0, 1.5], [2.0, -1.0]], dtype=torch.float64),
)
START = torch.tensor([2.5, 2.0], dtype=torch.float64)

WINDOW = -2.0, 3.0, -2.0, 3.0
"""Of the figure: smallest and largest w1, smallest and largest w2."""

STEPS = 1, 2, 5, 10, 20, 50, 200
"""Local steps K whose fixed points are drawn."""

MU = 1.0
"""FedProx's mu and FedDyn's alpha."""


def demonstrate(steps: int, lr: float, rounds: int) -> Result:
    optimum = CLIENTS.optimum
    methods: dict[str, Algorithm] = {
        "fedavg": FedAvg(),
        f"fedprox, mu {MU:g}": FedProx(mu=MU),
        "scaffold": Scaffold(),
        f"feddyn, alpha {MU:g}": FedDyn(alpha=MU),
    }
    paths = {name: CLIENTS.play(algorithm, START, lr, steps, rounds) for name, algorithm in methods.items()}
    distances = {name: torch.linalg.vector_norm(path - optimum, dim=1) for name, path in paths.items()}
    resting = {k: CLIENTS.fixed_point(lr, k) for k in STEPS}
    theory: dict[str, Value] = dict.fromkeys(paths, 0.0)
    for name, mu in {"fedavg": 0.0, f"fedprox, mu {MU:g}": MU}.items():
        theory[name] = torch.linalg.vector_norm(CLIENTS.fixed_point(lr, steps, mu) - optimum).item()
    findings = [
        f"{name}, {steps} local steps: {found[-1]:.3g} from the optimum after {rounds} rounds, "
        f"{theory[name]:.3g} at last in theory"
        for name, found in distances.items()
    ]
    findings += [
        f"fedavg's fixed point for {k} local step{'s' if k > 1 else ''}: "
        f"{torch.linalg.vector_norm(point - optimum):.3g} from the optimum"
        for k, point in resting.items()
    ]
    rows: list[Sequence[Value]] = [
        (name, steps, round_, *path[round_].tolist(), distances[name][round_].item())
        for name, path in paths.items()
        for round_ in range(rounds + 1)
    ]
    rows += [
        ("fedavg, fixed point", k, None, *point.tolist(), torch.linalg.vector_norm(point - optimum).item())
        for k, point in resting.items()
    ]
    return Result(
        "drift",
        "Client drift: where two clients pull the model, and which methods correct it",
        findings,
        {"local steps": steps, "lr": lr, "rounds": rounds, "mu and alpha": MU},
        ("method", "local steps", "round", "w1", "w2", "distance from the optimum"),
        rows,
        partial(_figure, paths, distances, resting, steps, lr),
    )


def _figure(
    paths: Mapping[str, Tensor], distances: Mapping[str, Tensor], resting: Mapping[int, Tensor], steps: int, lr: float
) -> Figure:
    from simulations.report.shown import ShownFigure

    figure = ShownFigure(figsize=(10.0, 3.9), layout="constrained")
    pull, over_rounds, error = figure.subplots(1, 3)
    draw_contours(pull, _loss, WINDOW)
    for client in range(2):
        own = CLIENTS.local_path(client, START, lr, steps)
        pull.plot(
            own[:, 0], own[:, 1], color=COLORS[client], marker="o", markersize=2, label=f"client {client}, round 1"
        )
        pull.plot(*CLIENTS.targets[client], color=COLORS[client], marker="X", markersize=8, linestyle="")
    points = torch.stack([*resting.values()])
    pull.plot(points[:, 0], points[:, 1], "k.-", linewidth=1, label=f"fedavg rests, K = {', '.join(map(str, resting))}")
    pull.set_title("two clients pull apart", fontsize=9)
    draw_contours(over_rounds, _loss, WINDOW)
    for rank, (name, path) in enumerate(paths.items()):
        look = {"color": COLORS[rank], "linestyle": DASHES[rank], "label": name}
        over_rounds.plot(path[:, 0], path[:, 1], marker="o", markersize=2, **look)
        error.plot(distances[name].clamp_min(1e-16), **look)
    over_rounds.set_title(f"the server's model, K = {steps}", fontsize=9)
    error.set_yscale("log")
    error.set_xlabel("round")
    error.set_title("distance from the optimum", fontsize=9)
    for panel in (pull, over_rounds):
        panel.plot(*CLIENTS.optimum, "k*", markersize=10)
        panel.set_xlabel("w1")
        panel.set_ylabel("w2")
    for panel in (pull, error):
        panel.legend(fontsize=7, framealpha=0.8)
    return figure


def _loss(w: Tensor) -> Tensor:
    """The mean of the clients' losses at points [..., 2]."""
    away = w[..., None, :] - CLIENTS.targets
    return 0.5 * torch.einsum("...ni,nij,...nj->...", away, CLIENTS.matrices, away) / len(CLIENTS.targets)
