"""The gradients of a run's clients at one of its models, and what is shown of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedopt.algorithms.base import shares
from fedopt.data.fingerprint import fingerprint_partition
from fedopt.device import threads
from fedopt.errors import InvalidExperiment
from fedopt.vectors.layout import Layout
from simulations.analysis.heterogeneity.client_gradients import (
    BINS,
    Angles,
    ClientSpectrum,
    Heterogeneity,
    client_spectrum,
)
from simulations.analysis.result import Result, Value
from simulations.analysis.runs.cache import Cache, identity
from simulations.analysis.runs.of_run import AnalyzedRun
from simulations.analysis.runs.points import Point
from simulations.analysis.runs.thread_count import threads_for
from simulations.report.style import COLORS
from simulations.sizing import memory

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KIND = "spectrum"

MEMORY_SHARE = 0.3
"""The share of the memory that gradients may fill; the measures need about as much again."""

PROBE = 500
"""Samples whose loss stands for the model's code in the cache's key."""

COLUMNS = (
    *("layer", "entries", "gradient norm", "variance", "share of the largest", "effective dimension", "dissimilarity"),
    *("B2", "median angle", "angle 5%", "angle 25%", "angle 75%", "angle 95%", "share above 90"),
)


def spectrum_at(
    run: AnalyzedRun, point: Point, clients: int, cache: Cache, say: Callable[[str], None]
) -> ClientSpectrum:
    """Of the first so many clients, with their shares among these. InvalidExperiment if the gradients fill the
    memory."""
    most = run.history.experiment.data.clients
    if clients > most:
        raise InvalidExperiment(f"--clients {clients}: the run has {most}")
    if clients < 2:
        raise InvalidExperiment("one client has no other to differ from; give --clients 2 or more")
    rows = [run.rows_of(client) for client in range(clients)]
    sizes = [len(one) for one in rows]
    needed, room = 8 * clients * len(point.w), MEMORY_SHARE * memory(torch.device("cpu"))
    if needed > room:
        raise InvalidExperiment(
            f"{clients} gradients of {len(point.w)} parameters take {needed / 1e9:.0f} GB; --clients "
            f"{max(2, int(room / 8 / len(point.w)))} analyzes the first of them"
        )
    weighting = run.history.experiment.algorithm.weighting
    with threads(threads_for(len(point.w), PROBE)):
        known = identity(run, point, run.objective(PROBE, 0, at=point.module))
    partition = fingerprint_partition([one.numpy() for one in rows])
    key = {**known, "partition": partition, "weighting": weighting}

    def compute() -> ClientSpectrum:
        gradients = _gradients(run, point, sizes, say)
        say(f"the spectrum of {clients} gradients of {len(point.w)} parameters")
        with threads(threads_for(len(point.w), clients)):
            return client_spectrum(gradients, shares(weighting, sizes), Layout.of(point.module))

    return cache.part(KIND, ClientSpectrum, key, compute)


def _gradients(run: AnalyzedRun, point: Point, sizes: Sequence[int], say: Callable[[str], None]) -> Tensor:
    """Of every client's loss on all of its samples, [N, P] in float64; several at a time, each in one thread, so that
    none depends on the others. `say` is called with an estimate of the time."""
    found = torch.empty(len(sizes), len(point.w), dtype=torch.float64)

    def one(client: int) -> int:
        found[client] = run.objective(sizes[client], 0, client, at=point.module).gradient(point.w)
        return client

    workers = min(len(sizes), os.cpu_count() or 1)
    with threads(1), ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        median = sorted(range(len(sizes)), key=lambda client: (sizes[client], client))[len(sizes) // 2]
        one(median)  # prepares kernels
        before = time.monotonic()
        one(median)
        each = (time.monotonic() - before) / sizes[median]
        say(f"about {each * sum(sizes) / workers:.0f} s: gradients of {len(sizes)} clients, {sum(sizes)} samples")
        done = 0
        for client in pool.map(one, range(len(sizes))):
            before_it, done = done, done + sizes[client]
            if 4 * done // sum(sizes) > 4 * before_it // sum(sizes) and done < sum(sizes):
                say(f"{client + 1} of {len(sizes)} clients")
    return found


def shown(name: str, of: str, found: ClientSpectrum, weighting: str, settings: Mapping[str, Value]) -> Result:
    """The measures as sentences, a table with a row for each layer, and a figure."""
    whole = found.whole
    weighed = "by their samples, p_i = n_i / n" if weighting == "samples" else "all alike, p_i = 1 / N"
    findings = [
        f"gradient of norm {whole.gradient:.3g}, clients weighted {weighed}, as the run does",
        f"variance of the clients' gradients {whole.variance:.4g}",
    ]
    if whole.dissimilarity is not None and whole.b2 is not None:
        findings[-1] += f", {whole.dissimilarity:.4g} times |g|^2 (B^2 = {whole.b2:.4g})"
    if whole.largest is not None and whole.dimension is not None:
        findings.append(
            f"{100 * whole.largest:.0f}% of it along one direction; effective dimension {whole.dimension:.3g} of "
            f"{len(whole.eigenvalues) - 1}"
        )
    angles = whole.angles
    if angles.median is not None and angles.above_90 is not None:
        low, _, _, high = angles.quantiles
        findings.append(
            f"angles between clients' gradients: median {angles.median:.0f}°, 5% to 95% {low:.0f}° to {high:.0f}°, "
            f"{100 * angles.above_90:.0f}% above 90°"
        )
    measured = {layer: one.dissimilarity for layer, one in found.layers.items() if one.dissimilarity}
    if len(measured) > 1:
        layer = max(measured, key=lambda name: measured[name])
        findings.append(f"the layer in which clients differ most: {layer}, {measured[layer]:.4g} times |g|^2")
    return Result(
        name,
        f"Gradients of the clients of {of}",
        findings,
        settings,
        COLUMNS,
        [_row("all", whole), *(_row(layer, one) for layer, one in found.layers.items())],
        partial(_figure, found),
        {"all": asdict(whole), "layers": {layer: asdict(one) for layer, one in found.layers.items()}},
        {
            "dissimilarity": whole.dissimilarity,
            "share of the largest": whole.largest,
            "effective dimension": whole.dimension,
            "median angle, °": angles.median,
            "share above 90°": angles.above_90,
        },
    )


def _row(layer: str, one: Heterogeneity) -> Sequence[Value]:
    quantiles: Sequence[Value] = one.angles.quantiles or [None] * 4
    return (
        *(layer, one.entries, one.gradient, one.variance, one.largest, one.dimension, one.dissimilarity, one.b2),
        *(one.angles.median, *quantiles, one.angles.above_90),
    )


def _figure(found: ClientSpectrum) -> Figure:
    from simulations.report.shown import ShownFigure

    figure = ShownFigure(figsize=(7.2, 5.0), layout="constrained")
    (values, angles), (by_layer, tilted) = figure.subplots(2, 2)
    whole = found.whole
    kept = [value / whole.variance for value in whole.eigenvalues if value > 1e-12 * whole.variance > 0]
    values.plot(range(1, len(kept) + 1), kept, color=COLORS[0], marker="o", markersize=3)
    values.set_yscale("log")
    values.set_xlabel("eigenvalue of the covariance, by size")
    values.set_ylabel("share of the trace")
    width = 180 / BINS
    places = [width * (place + 0.5) for place in range(BINS)]
    angles.bar(places, whole.angles.histogram, width, color=COLORS[4])
    angles.axvline(90, color=COLORS[6], linestyle=":", linewidth=1, label="90°")
    if whole.angles.median is not None:
        median = whole.angles.median
        angles.axvline(median, color=COLORS[1], linestyle="--", linewidth=1.2, label=f"median {median:.0f}°")
    angles.set_xlim(0, 180)
    angles.set_xticks(range(0, 181, 45))
    angles.set_xlabel("angle between the gradients of two clients, °")
    angles.set_ylabel("pairs")
    angles.legend(frameon=False, fontsize=8)
    dissimilar = [one.dissimilarity or 0.0 for one in found.layers.values()]
    by_layer.barh(range(len(dissimilar)), dissimilar, color=COLORS[0])
    by_layer.set_xlabel(r"$\sum p_i\,|g_i - g|^2\ /\ |g|^2$")
    _draw_angles(tilted, [one.angles for one in found.layers.values()])
    small = 8 if len(found.layers) <= 8 else 6
    by_layer.set_yticks(range(len(found.layers)), list(found.layers), fontsize=small)
    by_layer.set_ylabel("layer")
    tilted.set_yticks(range(len(found.layers)), [""] * len(found.layers))  # the names stand on the left
    for panel in (angles, by_layer, tilted):
        panel.set_axisbelow(True)
    for panel in (by_layer, tilted):
        panel.set_ylim(len(found.layers) - 0.5, -0.5)  # the first layer on top
    return figure


def _draw_angles(panel: Axes, layers: Sequence[Angles]) -> None:
    """The median of each layer, and from 5 to 95%; nothing for a layer whose gradients are zero."""
    panel.axvline(90, color=COLORS[6], linestyle=":", linewidth=1)
    for place, angles in enumerate(layers):
        if angles.median is not None:
            low, _, _, high = angles.quantiles
            panel.plot([low, high], [place, place], color=COLORS[4], linewidth=5, solid_capstyle="butt")
            panel.plot([angles.median], [place], color=COLORS[1], marker="o", markersize=5)
    panel.set_xlim(0, 180)
    panel.set_xticks(range(0, 181, 45))
    panel.set_xlabel("angle: median, 5% to 95%, °")
