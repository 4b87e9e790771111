"""`python -m tests.docs.curves` draws docs/images/algorithms.svg: curves of a few algorithms in one small setting.

It takes some minutes. The setting and what is drawn stand here, so that the picture can be made again.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import fedopt
from fedopt.algorithms import ALGORITHMS
from simulations.report.figures import draw, save
from simulations.report.style import COLORS, DASHES
from tests.docs.blocks import ROOT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FILE = ROOT / "docs" / "images" / "algorithms.svg"

GLOBAL = ("central", "fedavg", "scaffold", "feddyn", "fednova", "fedavgm")
OF_CLIENTS = ("central", "fedavg", "local", "finetune", "fedper", "ditto")
"""The algorithms whose global models, and whose clients' own models, are drawn: those of these that there are."""

ROUNDS, SEEDS = 30, (0, 1)

Curve = Sequence[float]
"""Accuracy in percent after each round, mean over the seeds."""


def histories(name: str, folder: Path) -> list[fedopt.History]:
    """The runs of one algorithm, with defaults for everything that is not said here."""
    return [
        fedopt.run(
            fedopt.Experiment(
                data={"clients": 20, "partition": "dirichlet", "alpha": 0.1},
                algorithm={"name": name},
                run={"rounds": ROUNDS, "participation": 1.0 if needs_all(name) else 0.5, "seed": seed, "workers": 1},
                metrics={"drift": "off", "drift_every": 0, "clients_every": 1},
            ),
            folder / f"{name}-{seed}",
        )
        for seed in SEEDS
    ]


def needs_all(name: str) -> bool:
    """Whether the algorithm refuses a part of the clients."""
    try:
        fedopt.Experiment(algorithm={"name": name}, run={"participation": 0.5})
    except fedopt.InvalidExperiment:
        return True
    return False


def mean(runs: Sequence[fedopt.History], of_clients: bool) -> Curve:
    """What clients use is the global model where the algorithm gives them no other."""
    return [
        statistics.fmean(
            100 * ((record.personal_accuracy if of_clients else None) or record.test_accuracy or 0.0)
            for record in records
        )
        for records in zip(*(run.records for run in runs), strict=True)
    ]


def figure(curves: dict[str, dict[str, Curve]]) -> Figure:
    """A panel for each title, with a curve for each name."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(7.2, 2.7), layout="constrained")
    colors: dict[str, int] = {}
    panels: Sequence[Axes] = made.subplots(1, len(curves), sharey=True)
    for panel, (title, of_panel) in zip(panels, curves.items(), strict=True):
        for name, curve in of_panel.items():
            rank = colors.setdefault(name, len(colors))
            style = {"color": COLORS[rank % len(COLORS)], "linestyle": DASHES[rank // len(COLORS)]}
            panel.plot(range(1, len(curve) + 1), curve, label=name, linewidth=1.2, **style)  # type: ignore[arg-type]
        panel.set_title(title, fontsize=9)
        panel.set_xlabel("round")
        panel.legend(fontsize=7, frameon=False)
    panels[0].set_ylabel("accuracy, %")
    return made


def main() -> None:
    known = set(ALGORITHMS)
    with tempfile.TemporaryDirectory() as folder:
        wanted = [name for name in dict.fromkeys((*GLOBAL, *OF_CLIENTS)) if name in known]
        runs = {name: histories(name, Path(folder)) for name in wanted}
    curves = {
        "the global model": {name: mean(runs[name], False) for name in GLOBAL if name in known},
        "the models that clients use": {name: mean(runs[name], True) for name in OF_CLIENTS if name in known},
    }
    drawn = draw(lambda: figure(curves))
    assert drawn is not None
    save(drawn, FILE, "svg")


if __name__ == "__main__":
    main()
