"""Measures over rounds as curves: the mean over seeds, with the standard deviation as a band."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from fedopt.drift.records import Drift, GradientDrift
from fedopt.runs.catalog import scalars
from fedopt.runs.history import RoundRecord
from simulations.results import Group

CURVE_MEASURES = ("test_accuracy", "personal_accuracy", "test_loss", "train_loss", *scalars())
"""The measures that have a curve."""


FEW = 12
"""Curves with fewer values have markers."""


@dataclass(frozen=True)
class Curve:
    """A measure of a group, in the rounds in which at least one seed has it."""

    rounds: tuple[int, ...]
    mean: tuple[float, ...]
    deviation: tuple[float | None, ...]
    """None in rounds in which only one seed has a value."""

    @property
    def empty(self) -> bool:
        return not self.rounds

    @property
    def needs_markers(self) -> bool:
        """Whether a line alone would hide where the values are: between rounds without one, or for a few values."""
        return len(self.rounds) < FEW or self.rounds[-1] - self.rounds[0] >= len(self.rounds)

    def at(self, rounds: Collection[int]) -> Curve:
        """The curve in these rounds alone."""
        places = [place for place, round_ in enumerate(self.rounds) if round_ in rounds]
        return Curve(
            tuple(self.rounds[place] for place in places),
            tuple(self.mean[place] for place in places),
            tuple(self.deviation[place] for place in places),
        )


def curve(group: Group, measure: str) -> Curve:
    return over_seeds([row.series(measure) for row in group.drawn])


def of_clients(groups: Sequence[Group]) -> Callable[[Group], Curve]:
    """The accuracy of the models that the clients use themselves: their own, or the global one.

    Clients' models are evaluated in fewer rounds than a global one. All curves are of these rounds, because a curve of
    more rounds would seem to rise earlier.
    """
    own = [group for group in groups if any(row.is_personal for row in group.rows)]
    evaluated = {round_ for group in own for round_ in curve(group, "personal_accuracy").rounds}

    def of(group: Group) -> Curve:
        if any(row.is_personal for row in group.rows):
            return curve(group, "personal_accuracy")
        return curve(group, "test_accuracy").at(evaluated)

    return of


def layer_curves(group: Group) -> dict[str, Curve]:
    """The drift ratio of the updates, layer by layer."""
    return _by_layer(group, lambda record: record.drift)


def layer_scales(group: Group) -> dict[str, Curve]:
    """The norm of the gradient by that of the weights, layer by layer."""
    return _by_layer(group, lambda record: record.gradients)


def _by_layer(group: Group, part: Callable[[RoundRecord], Drift | GradientDrift | None]) -> dict[str, Curve]:
    """For each layer, the `ratio` in this part of the records."""
    found: dict[str, list[list[tuple[int, float]]]] = {}
    for place, row in enumerate(group.drawn):
        for record in row.run.records:
            measured = part(record)
            for layer, measures in ({} if measured is None else measured.layers).items():
                series = found.setdefault(layer, [[] for _ in group.drawn])
                if measures.ratio is not None:
                    series[place].append((record.round, measures.ratio))
    return {layer: over_seeds(series) for layer, series in found.items()}


def megabytes(group: Group) -> dict[int, float]:
    """MB sent up and down until the end of each round, mean over seeds."""
    sums = [
        list(itertools.accumulate((record.bytes_up + record.bytes_down) / 1e6 for record in row.run.records))
        for row in group.drawn
    ]
    rounds = [[record.round for record in row.run.records] for row in group.drawn]
    found = over_seeds([list(zip(numbers, sent, strict=True)) for numbers, sent in zip(rounds, sums, strict=True)])
    return dict(zip(found.rounds, found.mean, strict=True))


def over_seeds(series: Sequence[Sequence[tuple[int, float]]]) -> Curve:
    by_round: dict[int, list[float]] = {}
    for values in series:
        for round_, value in values:
            by_round.setdefault(round_, []).append(value)
    rounds = sorted(by_round)
    return Curve(
        tuple(rounds),
        tuple(statistics.fmean(by_round[round_]) for round_ in rounds),
        tuple(statistics.stdev(by_round[r]) if len(by_round[r]) > 1 else None for r in rounds),
    )


def client_accuracies(group: Group) -> list[float]:
    """The accuracies of all clients with a test share, over all seeds, from each run's last client evaluation."""
    found: list[float] = []
    for row in group.drawn:
        measured = [record.clients for record in row.run.records if record.clients is not None]
        if measured:
            found += [accuracy for accuracy in measured[-1].accuracy if accuracy is not None]
    return found


def class_accuracies(group: Group) -> list[float | None]:
    """The accuracy of each class at the last evaluation, mean over seeds."""
    last = [
        measured[-1].accuracy
        for row in group.drawn
        if (measured := [record.classes for record in row.run.records if record.classes is not None])
    ]
    if not last or len({len(accuracies) for accuracies in last}) > 1:
        return []
    known = [[value for value in column if value is not None] for column in zip(*last, strict=True)]
    return [statistics.fmean(values) if values else None for values in known]
