"""Which updates may touch the model, and why the others may not."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedopt.round.federation import Update, WorkOrder
from fedopt.round.plausibility import Bounds, Norms, largest_norms, lengths
from fedopt.vectors.exact_sum import LARGEST
from fedopt.vectors.layout import largest_magnitude


@dataclass(frozen=True)
class Refusal:
    """Why an update was not let in."""

    client: int
    reason: str
    diverged: bool = False
    """Whether the numbers themselves ran away, as opposed to an update that is malformed."""


ANYTHING = Bounds()


def examine(
    update: Update, order: WorkOrder, samples: int, bounds: Bounds = ANYTHING, norms: Norms | None = None
) -> Refusal | None:
    """None for an update that answers `order`, has the model's shape and only finite, summable, plausible numbers.

    `norms` are the lengths of the updates that earlier rounds accepted.
    """
    settings = bounds.settings

    def refuse(reason: str, *, diverged: bool = False) -> Refusal:
        return Refusal(update.client, reason, diverged)

    if update.round != order.round:
        return refuse(f"it belongs to round {update.round}, not {order.round}")
    if update.samples != samples:
        return refuse(f"it reports {update.samples} samples, the client has {samples}")
    if update.samples > settings.largest_samples:
        return refuse(
            f"it reports {update.samples} samples, more than {settings.largest_samples} (admission.largest_samples)"
        )
    if update.steps < 1:
        return refuse(f"it reports {update.steps} steps")
    if bounds.steps is not None and update.steps > bounds.steps(samples):
        return refuse(f"it reports {update.steps} steps, its order asks for {bounds.steps(samples)}")
    for name, vector in update.up.items():
        if vector.shape != order.x.shape or vector.dtype != order.x.dtype:
            return refuse(
                f"{name} is {vector.dtype} {tuple(vector.shape)}, the model {order.x.dtype} {tuple(order.x.shape)}"
            )
        largest = largest_magnitude(vector)
        if not math.isfinite(largest):
            return refuse(f"{name} is not finite", diverged=True)
        if largest >= LARGEST:
            return refuse(f"{name} has an entry of {largest:.3g}", diverged=True)
    if not math.isfinite(update.loss):
        return refuse(f"its loss is {update.loss}", diverged=True)
    for name, number in (("loss", update.loss), *update.told.items()):
        if abs(number) > settings.largest_loss:
            return refuse(
                f"its {name} is {number:.3g}, beyond {settings.largest_loss:g} (admission.largest_loss)", diverged=True
            )
    most = largest_norms(order.x, norms or {}, list(update.up), settings)
    for name, found in lengths(update.up).items():
        if found > most[name]:
            return refuse(
                f"{name} is {found:.3g} long, where at most {most[name]:.3g} is plausible (admission.largest_norm)",
                diverged=True,
            )
    return None
