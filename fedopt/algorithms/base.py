"""What a federated algorithm is: a handful of pure functions of vectors, and its own settings.

No transport, no engine, no clock, no randomness. Vectors are flat: [P] on the server, [lanes, P] on
clients that train side by side (a deployed client is one lane). An algorithm says

    server_keeps   what the server keeps beside the model x
    client_keeps   what a client keeps between rounds, before its first one
    sends_down     what travels down beside x
    begin          what a client prepares once a round from x, what came down and what it kept
    shift          what is added to every local gradient before the optimizer sees it, or
    correct        how else it is corrected at each step
    finish         what travels up, and what the client keeps, once the local work is done
    advance        how means of what travelled up become the next x and the next server vectors
    tell, check    what its own state is worth, for the records; most have nothing to tell
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from fedopt.algorithms import ALGORITHMS
from fedopt.family import Family
from fedopt.registry import Registry
from fedopt.vectors.exact_sum import Totals
from fedopt.vectors.layout import Vectors


@dataclass(frozen=True)
class LocalWork:
    """One round's local work on lanes, as `finish` sees it."""

    x: Tensor
    """The model that came down, [P]."""
    y: Tensor
    """Where each lane's steps led, [lanes, P]."""
    displacement: Tensor
    """y - x, [lanes, P]."""
    kept: Vectors
    """What each client kept from its last accepted round, [lanes, P] each."""
    mean_gradient: Tensor | None
    """Mean of the raw gradients that drove the steps really taken, [lanes, P]; None unless asked for."""
    full_gradient: Callable[[], Tensor]
    """Gradients at x over all of each client's data, [lanes, P]; costs a pass over them, the first time."""
    down: Vectors = field(default_factory=dict)
    """What came down beside x, [P] each."""
    began: Vectors = field(default_factory=dict)
    """What `begin` made of it for the steps."""


@dataclass(frozen=True)
class Finished:
    """What `finish` decides: vectors [lanes, P] that travel up, and those the client keeps."""

    up: Vectors
    keep: Vectors


DISPLACEMENT = "dx"
"""The name under which y - x travels up; client drift is measured from it."""

Weighting = Literal["samples", "uniform"]


class Algorithm(Family, ABC):
    """Base of all algorithms; its fields are the keys of the experiment's [algorithm] section."""

    registry: ClassVar[Registry] = ALGORITHMS
    server_lr: float = Field(1.0, gt=0)
    weighting: Weighting = "samples"
    """The objective: p_i = n_i / n, or 1 / N. The same p_i weight everything the server takes a mean of."""

    tells: ClassVar[frozenset[str]] = frozenset()
    """Names of the numbers that `tell` may give: fields of `ControlDrift`, as are those of `check`."""

    @property
    def averages_gradients(self) -> bool:
        """Whether `finish` reads `mean_gradient`, which costs a sum at every step."""
        return False

    @property
    def corrects_gradients(self) -> bool:
        """Whether `correct` does more than to add the `shift`; where it does not, SGD can step without a detour."""
        return type(self).correct is not Algorithm.correct

    def server_keeps(self, x: Tensor) -> Vectors:
        return {}

    def client_keeps(self, x: Tensor) -> Vectors:
        return {}

    def sends_down(self, server: Vectors) -> Vectors:
        return {}

    def begin(self, x: Tensor, down: Vectors, kept: Vectors) -> Vectors:
        return {}

    def shift(self, local: Vectors) -> Tensor | None:
        """What is added to every gradient of the round, [lanes, P]; None if nothing is."""
        return None

    def correct(self, gradient: Tensor, y: Tensor, local: Vectors) -> Tensor:
        shift = self.shift(local)
        return gradient if shift is None else gradient + shift

    @abstractmethod
    def finish(self, work: LocalWork) -> Finished: ...

    @abstractmethod
    def advance(self, x: Tensor, server: Vectors, totals: Totals) -> tuple[Tensor, Vectors]: ...

    def tell(self, work: LocalWork, gradient: Tensor | None) -> Mapping[str, Tensor]:
        """Numbers [lanes] for the records; `gradient` is grad f_i(x), [lanes, P], where it was computed anyway."""
        return {}

    def check(self, server: Vectors, mean_kept: Vectors) -> Mapping[str, float]:
        """Numbers for the records from sum p_i v_i over all clients of what they keep."""
        return {}


def shares(weighting: Weighting, samples: list[int]) -> list[float]:
    """p_i, the share of each of the N clients in the objective; they add up to 1."""
    if weighting == "uniform":
        return [1.0 / len(samples)] * len(samples)
    everything = sum(samples)
    return [n / everything for n in samples]


def names_up(algorithm: Algorithm) -> set[str]:
    """Names of the vectors that travel up: those that `finish` makes of a model with one parameter."""
    one = torch.zeros(1)
    lane = one[None]
    kept = {name: vector[None] for name, vector in algorithm.client_keeps(one).items()}
    return set(algorithm.finish(LocalWork(one, lane, lane, kept, lane, lambda: lane)).up)
