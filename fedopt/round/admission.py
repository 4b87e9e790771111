"""Which updates may change the model, and why the others may not."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedopt.drift.gradients import GRADIENT
from fedopt.round.federation import Broadcast, Update
from fedopt.round.plausibility import Bounds, Norms, largest_norms, lengths
from fedopt.vectors.exact_sum import LARGEST
from fedopt.vectors.layout import largest_magnitude


@dataclass(frozen=True)
class Refusal:
    """Why an update was not admitted."""

    client: int
    reason: str
    diverged: bool = False
    """Whether its numbers grew without bound, as opposed to an update that is malformed."""


NO_BOUNDS = Bounds()


def examine(
    update: Update, broadcast: Broadcast, samples: int, bounds: Bounds = NO_BOUNDS, norms: Norms | None = None
) -> Refusal | None:
    """None for an update of this round with the model's shape and only finite, summable, plausible numbers.

    `samples` is n_i as the client reported it at first; `norms` are lengths of updates that earlier rounds accepted.
    """
    if update.round != broadcast.round:
        return Refusal(update.client, f"it belongs to round {update.round}, not {broadcast.round}")
    reason = _of_numbers(update, samples, bounds, broadcast.survey)
    if reason is not None:
        return Refusal(update.client, reason)
    missing = _what_is_missing(update, broadcast, bounds)
    if missing is not None:
        return Refusal(update.client, missing)
    x = broadcast.x
    for name, vector in update.up.items():
        if vector.shape != x.shape or vector.dtype != x.dtype:
            return Refusal(
                update.client, f"{name} is {vector.dtype} {tuple(vector.shape)}, the model {x.dtype} {tuple(x.shape)}"
            )
        largest = largest_magnitude(vector)
        if not math.isfinite(largest):
            return Refusal(update.client, f"{name} is not finite", diverged=True)
        if largest >= LARGEST:
            return Refusal(update.client, f"{name} has an entry of {largest:.3g}", diverged=True)
    negative = bounds.norms.negative_variance(update.up)
    if negative is not None:
        return Refusal(update.client, f"{negative} has an entry below zero")
    reason = _of_magnitudes(update, broadcast, bounds, norms or {})
    return None if reason is None else Refusal(update.client, reason, diverged=True)


def _of_numbers(update: Update, samples: int, bounds: Bounds, survey: bool) -> str | None:
    numbers, most = update.numbers, bounds.settings.largest_samples
    if numbers.samples != samples:
        return f"it reports {numbers.samples} samples, the client has {samples}"
    if numbers.samples > most:
        return f"it reports {numbers.samples} samples, more than {most} (admission.largest_samples)"
    if survey:
        return f"it reports {numbers.steps} steps, its order asks for none" if numbers.steps else None
    if numbers.steps < 1:
        return f"it reports {numbers.steps} steps"
    asked = None if bounds.steps is None else bounds.steps(samples, update.round, update.client)
    if asked is not None and numbers.steps > asked:
        return f"it reports {numbers.steps} steps, its order asks for {asked}"
    return None


def _what_is_missing(update: Update, broadcast: Broadcast, bounds: Bounds) -> str | None:
    """The vectors and numbers must be just those that the algorithm sends."""
    if broadcast.survey:
        found = sorted(update.up)
        return None if found == [GRADIENT] else f"it brings {found} where {[GRADIENT]} belong"
    if bounds.vectors is not None:
        expected = {*bounds.vectors, *([GRADIENT] if broadcast.gradient else [])}
        if update.up.keys() != expected:
            return f"it brings {sorted(update.up)} where {sorted(expected)} belong"
    for name in bounds.numbers:
        if name not in update.numbers.own:
            return f"it lacks the number {name}"
    return None


def _of_magnitudes(update: Update, broadcast: Broadcast, bounds: Bounds, norms: Norms) -> str | None:
    settings, numbers = bounds.settings, update.numbers
    if not math.isfinite(numbers.loss):
        return f"its loss is {numbers.loss}"
    for name, number in (("loss", numbers.loss), *numbers.own.items()):
        if not math.isfinite(number):
            return f"its {name} is {number}"
        if abs(number) > settings.largest_loss:
            return f"its {name} is {number:.3g}, beyond {settings.largest_loss:g} (admission.largest_loss)"
    up = bounds.norms.apart(update.up)
    most = largest_norms(bounds.norms.trained(broadcast.x), norms, list(up), settings)
    for name, found in lengths(up).items():
        if found > most[name]:
            return f"{name} is {found:.3g} long, where at most {most[name]:.3g} is plausible (admission.largest_norm)"
    return None
