"""What a landscape needs evaluated, known before it begins: a part of it names its points, and makes of their losses
what is shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from simulations.analysis.result import Result
from simulations.analysis.runs.evaluation import Evaluation, Losses, PointSet


@dataclass(frozen=True)
class Work:
    points: PointSet
    names: Sequence[str]
    """Of the objectives."""
    exact: bool
    """In float64; else in the precision of the planes."""

    @property
    def losses(self) -> int:
        return len(self.points) * len(self.names)

    @property
    def key(self) -> dict[str, object]:
        """For the cache."""
        return {"points": self.points.sha256, "names": list(self.names), "exact": self.exact}


class Part(Protocol):
    @property
    def kind(self) -> str:
        """What it is called in the cache."""
        ...

    def works(self) -> list[Work]: ...

    def results(self, found: Sequence[Losses]) -> list[Result]:
        """From the losses of `works`, in their order."""
        ...


@dataclass(frozen=True)
class Evaluations:
    exact: Evaluation
    quick: Evaluation

    def of_all(self, works: Sequence[Work], done: Callable[[int], None]) -> list[Losses]:
        return [self._of(work).at(work.points, work.names, done) for work in works]

    def seconds(self, works: Sequence[Work]) -> float:
        """About how long they take, from one loss of each objective at the first point."""
        total = 0.0
        for evaluation in (self.exact, self.quick):
            own = [work for work in works if self._of(work) is evaluation]
            if own:
                names = sorted({name for work in own for name in work.names})
                each = evaluation.seconds(own[0].points[0], names)
                total += sum(len(work.points) * each[name] for work in own for name in work.names)
            if self.exact is self.quick:
                break
        return total

    def _of(self, work: Work) -> Evaluation:
        return self.exact if work.exact else self.quick


def or_none(number: float) -> float | None:
    """What a file holds of a loss: None where it is not finite."""
    return number if math.isfinite(number) else None


def said_of_gaps(what: str, gaps: Mapping[str, int], points: int) -> list[str]:
    """A sentence for each loss that is not finite somewhere."""
    return [
        f"{what}: the {name} loss is not finite at {count} of {points} points, which are gaps in the figure"
        for name, count in gaps.items()
        if count
    ]
