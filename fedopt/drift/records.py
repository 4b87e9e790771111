"""What is measured, under the names that metrics.jsonl, results.csv and reports share; `fedopt list metrics` tells.

x is the model at the start of the round, y_i a client's after its work, d_i = y_i - x, w_i the client's weight among
the round's clients (they add up to 1), d = sum w_i d_i. A measure that is not defined, or not at hand, is null.
"""

from __future__ import annotations

import math

from pydantic import Field

from fedopt.storage.record import Line


class UpdateDrift(Line):
    """How far the clients' updates lie apart."""

    norm: float
    """|d|, the length of the mean update."""
    mean_norm: float
    """sum w_i |d_i|, the mean length of a client's update."""
    dispersion: float
    """sum w_i |d_i - d|^2, the spread of the updates around their mean; 0 when all clients agree."""
    ratio: float | None
    """sum w_i |d_i|^2 / |d|^2, the drift ratio: 1 when all clients agree, large when their updates cancel."""
    cosine: float | None
    """Mean of cos(d_i, d_j) over all pairs of clients: 1 for one direction, 0 for orthogonal, below 0 for opposed."""


class Drift(UpdateDrift):
    """Of the whole model, and of each of its layers."""

    layers: dict[str, UpdateDrift] = Field(default_factory=dict)
    """The same five for the parameters of each layer."""


class GradientDrift(Line):
    """How unlike the clients' objectives are, from full gradients g_i = grad f_i(x), with g = sum w_i g_i."""

    norm: float
    """|g|, the length of the gradient of the round's objective at x."""
    zeta2: float
    """sum w_i |g_i - g|^2, the gradient dissimilarity zeta^2; 0 when all clients have one objective."""
    b2: float | None
    """sum w_i |g_i|^2 / |g|^2, the local dissimilarity B^2 of FedProx; 1 when all clients have one objective."""
    alignment: float | None
    """cos(d, -g): 1 when the mean update goes straight down the objective of the round's clients."""


class ClientSpread(Line):
    """The model after the round, on each client's own test share."""

    mean: float
    """Mean accuracy over clients, each counting once."""
    worst: float
    """Mean accuracy of the worst tenth of the clients."""
    deviation: float
    """Standard deviation of the accuracy over clients."""
    mean_loss: float
    """Mean test loss over clients, each counting once."""
    accuracy: list[float | None]
    """Accuracy of each client, by its number; null without a test share."""
    loss: list[float | None]
    """Test loss of each client."""


class ClassSpread(Line):
    """The model after the round, class by class."""

    worst: float
    """The lowest accuracy of a class."""
    mean_forgetting: float
    """Mean of `forgetting` over classes."""
    accuracy: list[float | None]
    """Test accuracy of each class; null where the test set has none of it."""
    forgetting: list[float | None]
    """For each class, its best accuracy in any round so far minus its accuracy now."""


class LabelSpread(Line):
    """What partition.json says, once for a run. Counts are null in a deployment: labels stay with the clients."""

    classes: list[str]
    """The classes' names."""
    sizes: list[int]
    """n_i, the samples of each client."""
    counts: list[list[int]] | None = None
    """Samples of each client by class."""
    entropy: list[float] | None = None
    """-sum_k q_ik log2 q_ik for each client's label distribution q_i, in bits: 0 for a single label."""
    effective_classes: list[float] | None = None
    """2^entropy: how many equally frequent classes would have the same entropy."""
    total_variation: list[float] | None = None
    """1/2 sum_k |q_ik - q_k|, the distance from the overall label distribution q: 0 alike, 1 disjoint."""
    jensen_shannon: list[float] | None = None
    """sqrt of the Jensen-Shannon divergence (base 2) between q_i and q: 0 alike, 1 disjoint."""


def ratio(mean_square: float, square_of_mean: float) -> float | None:
    """sum w_i |v_i|^2 / |sum w_i v_i|^2, which only rounding brings below 1; None where it is beyond all numbers."""
    if square_of_mean == 0 or not math.isfinite(mean_square / square_of_mean):
        return None
    return max(1.0, mean_square / square_of_mean)
