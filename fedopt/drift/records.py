"""The measures of client drift. metrics.jsonl, results.csv, reports and `fedopt list metrics` share these names.

x is the model at the start of the round, y_i a client's model after its local steps, d_i = y_i - x its update, w_i
its weight among the round's clients (the weights add up to 1) and d = sum w_i d_i the mean update. A measure that is
undefined or unavailable is null.
"""

from __future__ import annotations

import math

from pydantic import Field

from fedopt.storage.record import Line


class UpdateDrift(Line):
    """How far the clients' updates lie apart."""

    norm: float
    """|d|, the norm of the mean update."""
    mean_norm: float
    """sum w_i |d_i|, the mean norm of the clients' updates."""
    dispersion: float
    """sum w_i |d_i - d|^2, the spread of the updates around their mean; 0 when all updates are equal."""
    ratio: float | None
    """sum w_i |d_i|^2 / |d|^2, the drift ratio: 1 when all updates are equal, large when they cancel out."""
    cosine: float | None
    """Mean of cos(d_i, d_j) over pairs of clients: 1 for parallel updates, 0 for orthogonal, negative for opposed."""


class Drift(UpdateDrift):
    """The measures of the updates, for the whole model and for each layer."""

    layers: dict[str, UpdateDrift] = Field(default_factory=dict)
    """The same five measures for the parameters of each layer."""
    longest: float | None = None
    """The largest |d_i|. Where it is 4 times what mean_norm usually is, the run's log warns and names the client."""
    longest_client: int | None = None
    """The number of the client whose update that is; the lowest of several."""


class LayerScale(Line):
    """The gradient of one layer's parameters beside these parameters, at the model at the start of the round."""

    gradient: float
    """|g|, the norm of the gradient of the round's objective."""
    weights: float
    """|x|, the norm of the parameters."""
    ratio: float | None
    """|g| / |x|: a step of SGD at rate lr moves the layer by lr times this, in units of its norm. LARS and LARC give
    each tensor a rate of its own where these ratios lie orders of magnitude apart."""


class GradientDrift(Line):
    """How much the clients' objectives differ, from full gradients g_i = grad f_i(x), with g = sum w_i g_i."""

    norm: float
    """|g|, the norm of the gradient of the round's objective at x."""
    zeta2: float
    """sum w_i |g_i - g|^2, the gradient dissimilarity zeta^2; 0 when all clients have the same objective."""
    b2: float | None
    """sum w_i |g_i|^2 / |g|^2, the local dissimilarity B^2 of FedProx; 1 when all clients have the same objective."""
    alignment: float | None
    """cos(d, -g): 1 when the mean update follows the negative gradient of the round's objective."""
    layers: dict[str, LayerScale] = Field(default_factory=dict)
    """For the parameters of each layer: `gradient` |g| and `weights` |x|, the norms, and `ratio` |g| / |x|, how far a
    step at rate 1 moves the layer in units of its norm; where metrics.drift is "layers"."""


class SecondMomentDrift(Line):
    """How far the clients' second moments v_i of the local optimizer lie apart after their steps."""

    ratio: float | None
    """sum w_i |v_i|^2 / |v|^2 with v = sum w_i v_i: 1 when clients divide by the same."""
    cosine: float | None
    """Mean of cos(v_i, v_j) over pairs of clients: 1 when they scale directions alike, whatever the sizes of v_i."""


class ClientSpread(Line):
    """The model that each client uses after the round, on its own test share: the global model, or its own where the
    algorithm gives it one."""

    mean: float | None
    """Mean accuracy over clients, all with the same weight; null, as the next two, where targets are numbers."""
    worst: float | None
    """Mean accuracy of the worst tenth of the clients."""
    deviation: float | None
    """Standard deviation of the accuracy over clients."""
    mean_loss: float
    """Mean test loss over clients, all with the same weight."""
    accuracy: list[float | None]
    """Accuracy of each client, by its number; null without a test share."""
    loss: list[float | None]
    """Test loss of each client."""


class ClassSpread(Line):
    """The model after the round, class by class."""

    worst: float
    """The lowest accuracy over classes."""
    mean_forgetting: float
    """Mean of `forgetting` over classes."""
    accuracy: list[float | None]
    """Test accuracy of each class; null if the test set has no sample of it."""
    forgetting: list[float | None]
    """For each class, its best accuracy in any round so far minus its accuracy now."""


def ratio(mean_square: float, square_of_mean: float) -> float | None:
    """sum w_i |v_i|^2 / |sum w_i v_i|^2, at least 1 but for rounding; None if it is infinite or undefined."""
    if square_of_mean == 0 or not math.isfinite(mean_square / square_of_mean):
        return None
    return max(1.0, mean_square / square_of_mean)
