"""Figures for a paper as SVG and PDF: color-blind safe, one panel per comparison, the legend beside the data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from fedopt.data.label_skew import LabelSpread
from fedopt.errors import InvalidExperiment
from simulations.comparison import compared_accuracy, contexts
from simulations.report.curves import Curve, client_accuracies, curve, layer_scales, megabytes, of_clients
from simulations.report.landscapes import landscapes
from simulations.report.partitions import partitions
from simulations.report.style import COLORS, DASHES, STYLE
from simulations.results import Group, Results, axis_title, describe_value, name_value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PANELS = 24

MOST_CURVES = 8
"""The most curves in a panel of groups that differ in everything."""

MOST_NAMES = 30
"""The most clients or classes whose names stand on an axis."""

LONG = 30
"""The longest name, in characters, that stands beside a panel."""

CURVES = {
    "test_accuracy": ("accuracy", "test accuracy, %"),
    "regression.r2": ("r2", "test R²"),
    "test_loss": ("loss", "test loss"),
    "drift.ratio": ("drift-ratio", "drift ratio"),
    "drift.cosine": ("drift-cosine", "cosine between updates"),
    "gradients.zeta2": ("zeta2", "gradient dissimilarity ζ²"),
    "gradients.alignment": ("alignment", "alignment with −∇f"),
    "algorithm.error": ("control-error", "error of the controls"),
    "clients.worst": ("worst-clients", "accuracy of the worst tenth, %"),
    "divergence": ("divergence", "divergence from centralized"),
}
"""Measures that have a figure over rounds: the file's name and the axis label."""

LOGARITHMIC = {"test_loss", "drift.ratio", "gradients.zeta2", "algorithm.error", "divergence"}

Maker = Callable[[], "Figure | None"]


def makers(results: Results) -> dict[str, Maker]:
    """Each figure's name with what draws it; that returns None where there are no data for it."""
    found: dict[str, Maker] = {
        name: partial(_over_rounds, results, measure, label) for measure, (name, label) in CURVES.items()
    }
    if results.are_personal:
        found["accuracy"] = partial(_over_rounds, results, "test_accuracy", "test accuracy of the global model, %")
    found["clients-accuracy"] = partial(_of_clients, results)
    found["layer-scale"] = partial(_layer_scales, results)
    found["accuracy-by-bytes"] = partial(_over_rounds, results, "test_accuracy", "test accuracy, %", by_bytes=True)
    for axis, labels in results.axes.items():
        if len(labels) > 2 and axis != results.compare:
            found[f"final-by-{axis_title(axis)}"] = partial(_over_axis, results, axis)
    found["clients"] = partial(_clients, results)
    found["landscapes"] = partial(landscapes, results)
    for number, (title, labels_of) in enumerate(partitions(results).items(), 1):
        found[f"partition-{number}"] = partial(_partition, title, labels_of)
    return found


def draw(maker: Maker) -> Figure | None:
    """The figure in the report's style."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        return maker()


def save(figure: Figure, file: Path | IO[str] | IO[bytes], ending: str) -> None:
    """Writes the figure as `ending`: svg, pdf or png. The same figure gives the same bytes."""
    import matplotlib

    about = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(ending, {})
    with matplotlib.rc_context(STYLE):
        figure.savefig(file, format=ending, metadata=about, bbox_inches="tight", dpi=200)


def write_figures(results: Results, folder: Path) -> list[Path]:
    """Writes every figure for which there are data; returns the files without their endings."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidExperiment(f"--figures {folder} cannot be made: {error.strerror}") from error
    written: list[Path] = []
    for name, maker in makers(results).items():
        figure = draw(maker)
        if figure is None:
            continue
        for ending in ("svg", "pdf"):
            file = folder / f"{name}.{ending}"
            try:
                save(figure, file, ending)
            except OSError as error:
                raise InvalidExperiment(f"{file} cannot be written: {error.strerror}") from error
        written.append(folder / name)
    return written


def _panels(count: int, width: float = 3.2, height: float = 2.3) -> tuple[Figure, list[Axes]]:
    from simulations.report.shown import ShownFigure

    columns = min(count, max(2, math.ceil(math.sqrt(count)))) if count > 1 else 1
    rows = math.ceil(count / columns)
    single = count == 1
    figure = ShownFigure(
        figsize=((4.6 if single else width * columns), (3.0 if single else height * rows)), layout="constrained"
    )
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    axes = [panel for row in grid for panel in row]
    for panel in axes[count:]:
        panel.set_visible(False)
    for panel in axes[count - columns : count]:  # nothing visible is below it
        panel.xaxis.set_tick_params(labelbottom=True)
    return figure, axes[:count]


def _of_clients(results: Results) -> Figure | None:
    """Accuracy of the models that clients use; None if these are the global ones in all runs."""
    label = "accuracy of the clients' models, %"
    return (
        _over_rounds(results, "personal_accuracy", label, of=of_clients(results.groups))
        if results.are_personal
        else None
    )


def _over_rounds(
    results: Results,
    measure: str,
    label: str,
    by_bytes: bool = False,
    of: Callable[[Group], Curve] | None = None,
) -> Figure | None:
    """The curves of a measure, or those that `of` gives."""
    from matplotlib.ticker import MaxNLocator

    compared = _compared(results)[:MOST_PANELS]
    of = of or partial(curve, measure=measure)
    curves = {id(group): of(group) for _, groups in compared for group in groups.values()}
    if all(found.empty for found in curves.values()):
        return None
    figure, panels = _panels(len(compared))
    scale = 100 if label.endswith("%") else 1
    names: dict[str, object] = {}
    for panel, (title, groups) in zip(panels, compared, strict=True):
        marked = [f"{name}{group.mark}" for name, group in groups.items() if group.mark]
        panel.set_title("\n".join([title, *marked]).strip(), fontsize=9)
        for rank, (name, group) in enumerate(groups.items()):
            found = curves[id(group)]
            if not found.empty:
                names[name] = _draw(panel, found, rank, scale, _places(group, found, by_bytes))
        if measure in LOGARITHMIC:
            panel.set_yscale("log")
        if not by_bytes:
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.supxlabel("MB sent" if by_bytes else "round", fontsize=9)
    figure.supylabel(label, fontsize=9)
    if len(names) > 1:
        _legend(figure, names)
    return figure


def _layer_scales(results: Results) -> Figure | None:
    """The gradient-to-weight ratios of the layers, a panel for each group."""
    from matplotlib.ticker import MaxNLocator

    measured = [(group, found) for group in results.groups if len(found := layer_scales(group)) > 1][:MOST_PANELS]
    if not measured:
        return None
    figure, panels = _panels(len(measured))
    names: dict[str, object] = {}
    for panel, (group, layers) in zip(panels, measured, strict=True):
        panel.set_title(f"{group.title}{group.mark}", fontsize=9)
        for rank, (layer, scale) in enumerate(layers.items()):
            names[f"layer {layer}"] = _draw(panel, scale, rank, 1, scale.rounds)
        panel.set_yscale("log")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.supxlabel("round", fontsize=9)
    figure.supylabel("gradient / weights", fontsize=9)
    _legend(figure, names)
    return figure


def _compared(results: Results) -> list[tuple[str, dict[str, Group]]]:
    """The panels: a title, and groups by their names. Groups that have nobody to compare with share one panel."""
    found = contexts(results)
    if 1 < len(found) <= MOST_CURVES and all(len(groups) == 1 for _, groups in found):
        return [("", {group.title: group for group in results.groups})]

    def name(group: Group) -> str:
        own = group.labels.get(results.compare)
        return group.title if own is None else name_value(results.compare, own)

    titles = [", ".join(describe_value(axis, label) for axis, label in where.items()) for where, _ in found]
    return [(title, {name(group): group for group in groups}) for title, (_, groups) in zip(titles, found, strict=True)]


def _legend(figure: Figure, names: Mapping[str, object]) -> None:
    """Beside the panels, or above them if a name is long."""
    place = "outside upper center" if max(map(len, names)) > LONG else "outside right upper"
    figure.legend(names.values(), names.keys(), loc=place, frameon=False)  # type: ignore[call-overload]


def _places(group: Group, found: Curve, by_bytes: bool) -> Sequence[float]:
    if not by_bytes:
        return found.rounds
    sent = megabytes(group)
    return [sent[round_] for round_ in found.rounds]


def _draw(panel: Axes, found: Curve, rank: int, scale: float, places: Sequence[float]) -> object:
    color, dash = COLORS[rank % len(COLORS)], DASHES[rank % len(DASHES)]
    means = [scale * value for value in found.mean]
    low = [scale * (mean - (deviation or 0)) for mean, deviation in zip(found.mean, found.deviation, strict=True)]
    high = [scale * (mean + (deviation or 0)) for mean, deviation in zip(found.mean, found.deviation, strict=True)]
    panel.fill_between(places, low, high, color=color, alpha=0.15, linewidth=0)
    (line,) = panel.plot(places, means, color=color, linestyle=dash, **markers(found))
    return line


def markers(found: Curve) -> dict[str, Any]:
    """What matplotlib's `plot` needs to show where the values are."""
    return {"marker": "o", "markersize": 2.5} if found.needs_markers else {}


def _over_axis(results: Results, axis: str) -> Figure | None:
    """Final accuracy against the values of one axis, a panel for each combination of those not compared."""
    places = results.axes[axis]
    panels_of: dict[tuple[tuple[str, str], ...], dict[str, list[Group]]] = {}
    for group in results.groups:
        rest = tuple((a, label) for a, label in group.labels.items() if a not in (axis, results.compare))
        panels_of.setdefault(rest, {}).setdefault(
            name_value(results.compare, group.labels.get(results.compare, "")), []
        ).append(group)
    compared = compared_accuracy(results)
    figure, panels = _panels(len(panels_of))
    names: dict[str, object] = {}
    for panel, (rest, lines) in zip(panels, panels_of.items(), strict=True):
        panel.set_title(", ".join(describe_value(a, label) for a, label in rest), fontsize=9)
        for rank, (name, groups) in enumerate(lines.items()):
            known = [(places.index(g.labels[axis]), s) for g in groups if (s := g.spread(compared.of))]
            if known:
                names[name] = panel.errorbar(
                    [place + 0.06 * (rank - (len(lines) - 1) / 2) for place, _ in known],
                    [compared.scale * spread.mean for _, spread in known],
                    [
                        math.nan if spread.deviation is None else compared.scale * spread.deviation
                        for _, spread in known
                    ],
                    color=COLORS[rank % len(COLORS)],
                    linestyle=DASHES[rank % len(DASHES)],
                    marker="o",
                    markersize=3.5,
                    capsize=2.5,
                )
            for g in groups:
                if g.mark and (spread := g.spread(compared.of)):
                    panel.annotate(
                        f"{len(g.finished)}/{len(g.rows)}",
                        (places.index(g.labels[axis]), compared.scale * spread.mean),
                        (0, 5),
                        textcoords="offset points",
                        ha="center",
                        fontsize=7,
                    )
        panel.set_xticks(range(len(places)), places)
    figure.supxlabel(axis_title(axis), fontsize=9)
    figure.supylabel(f"{compared.title}{compared.unit}", fontsize=9)
    if len(names) > 1:
        _legend(figure, names)
    return figure


def _clients(results: Results) -> Figure | None:
    measured = [(group, found) for group in results.groups if (found := client_accuracies(group))][: 2 * MOST_PANELS]
    if not measured:
        return None
    figure, (panel,) = _panels(1)
    figure.set_size_inches(6.0, 0.8 + 0.26 * len(measured))
    panel.boxplot(
        [[100 * value for value in values] for _, values in measured],
        orientation="horizontal",
        whis=(10, 100),
        showfliers=False,
        medianprops={"color": COLORS[1]},
    )
    panel.set_yticks(range(1, len(measured) + 1), [group.title + group.mark for group, _ in measured])
    panel.invert_yaxis()
    panel.set_xlabel("accuracy of each client on its own test share, %; whiskers from the worst tenth")
    return figure


def _partition(title: str, labels: LabelSpread) -> Figure | None:
    if labels.counts is None:
        return None
    from matplotlib.ticker import MaxNLocator

    from simulations.report.shown import ShownFigure

    figure = ShownFigure(figsize=(min(12.0, 3.0 + 0.09 * len(labels.sizes)), 5.0), layout="constrained")
    bars, spots = figure.subplots(2, 1, sharex=True)
    below, clients = [0] * len(labels.sizes), range(len(labels.sizes))
    shade = _shades(len(labels.classes))
    for label in range(len(labels.classes)):
        column = [row[label] for row in labels.counts]
        bars.bar(clients, column, bottom=below, color=shade(label), width=0.86)
        below = [a + b for a, b in zip(below, column, strict=True)]
    bars.set_title(title, fontsize=9)
    bars.set_ylabel("samples")
    most = max(max(row) for row in labels.counts)
    seen = [(c, k, n) for c, row in enumerate(labels.counts) for k, n in enumerate(row) if n]
    spots.scatter(
        [c for c, _, _ in seen],
        [k for _, k, _ in seen],
        s=[60 * n / most for _, _, n in seen],
        c=[shade(k) for _, k, _ in seen],
        linewidths=0,
    )
    if len(labels.classes) <= MOST_NAMES:
        spots.set_yticks(range(len(labels.classes)), labels.classes)
    if labels.clients is not None and len(labels.clients) <= MOST_NAMES:
        spots.set_xticks(clients, labels.clients, rotation=45, ha="right", rotation_mode="anchor")
    else:
        spots.xaxis.set_major_locator(MaxNLocator(integer=True))
    spots.set_ylabel("class")
    spots.set_xlabel("client")
    return figure


def _shades(classes: int) -> Callable[[int], object]:
    import matplotlib

    scale = matplotlib.colormaps["viridis"]
    return lambda label: scale(label / max(1, classes - 1))
