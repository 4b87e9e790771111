"""How accuracy varies over clients, each on its own test share, and over classes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Protocol

from fedopt.drift.records import ClassSpread, ClientSpread

WORST = 0.1
"""The share of the clients that `worst` averages over."""

Accuracies = Sequence[float | None]
"""By class; None for a class without samples."""


class ClientScore(Protocol):
    """The model on one client's own test share."""

    @property
    def client(self) -> int: ...

    @property
    def samples(self) -> int: ...

    @property
    def loss(self) -> float: ...

    @property
    def accuracy(self) -> float | None: ...


def spread_over_clients(scores: Sequence[ClientScore], clients: int) -> ClientSpread | None:
    """None if no client has a score."""
    scores = [score for score in scores if math.isfinite(score.loss)]
    if not scores:
        return None
    by_client = {score.client: score for score in scores}
    accuracies = sorted(score.accuracy for score in scores if score.accuracy is not None)
    worst = accuracies[: max(1, round(WORST * len(accuracies)))]
    return ClientSpread(
        mean=statistics.fmean(accuracies) if accuracies else None,
        worst=statistics.fmean(worst) if worst else None,
        deviation=statistics.pstdev(accuracies) if accuracies else None,
        mean_loss=statistics.fmean(score.loss for score in sorted(scores, key=lambda score: score.client)),
        accuracy=[by_client[i].accuracy if i in by_client else None for i in range(clients)],
        loss=[by_client[i].loss if i in by_client else None for i in range(clients)],
    )


def accuracy_over_samples(scores: Sequence[ClientScore]) -> float | None:
    """Accuracy over all samples of the clients' test shares; None if no client has a score, or none has an accuracy."""
    known = [(score.accuracy, score.samples) for score in scores if score.accuracy is not None]
    samples = sum(count for _, count in known)
    return sum(accuracy * count for accuracy, count in known) / samples if samples else None


def spread_over_classes(now: Accuracies, best: Accuracies) -> ClassSpread | None:
    """`best` is each class's best accuracy so far, this round included."""
    known = [accuracy for accuracy in now if accuracy is not None]
    if not known:
        return None
    forgetting = [
        None if accuracy is None or most is None else most - accuracy for accuracy, most in zip(now, best, strict=True)
    ]
    return ClassSpread(
        worst=min(known),
        mean_forgetting=statistics.fmean(lost for lost in forgetting if lost is not None),
        accuracy=list(now),
        forgetting=forgetting,
    )


def best_so_far(best_before: Accuracies, now: Accuracies) -> list[float | None]:
    """The larger of the two, class by class; `best_before` is empty at the first evaluation."""
    if not best_before:
        return list(now)
    return [
        max((accuracy for accuracy in pair if accuracy is not None), default=None)
        for pair in zip(best_before, now, strict=True)
    ]
