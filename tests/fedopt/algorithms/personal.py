"""What clients use themselves after rounds of a real federation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fedopt.algorithms.base import Algorithm
from tests.fedopt.algorithms.papers.setting import Played


def personal_models(algorithm: Algorithm, played: Sequence[Played]) -> list[Tensor]:
    """The model of each client after the last of these rounds, [P] each."""
    state, _, federation = played[-1]
    clients = range(len(federation.samples))
    return [algorithm.personal(state.x, federation.states.at(i, state.accepted.get(i))) for i in clients]


def same_bits(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def apart(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest error, relative to the largest entry of its vector."""
    pairs = zip(found, expected, strict=True)
    return max(float((one - other).abs().max() / other.abs().max()) for one, other in pairs)
