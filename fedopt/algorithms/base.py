"""The contract of federated algorithms: a few pure functions of vectors, and the algorithm's own settings.

An algorithm knows nothing of transport, engine or clock; chance comes from the keyed streams of a `ServerRound` alone.
In the order of a round:

    server_state   vectors that the server keeps beside the model x, before the first round
    client_state   vectors that a client keeps between rounds, before its first one
    sends_down     vectors that travel down beside x
    start          where a client begins, if not at x
    begin          what a client prepares once a round
    shift          what is added to every raw gradient before the optimizer sees it, or
    correct        any other correction of a gradient, at each step
    finish         what travels up (vectors and numbers), and the client's new state
    advance        the next x and the next server state, from means of what travelled up
    personal       the model that a client would use itself
    check          numbers for the records from the mean of all clients' states

A vector is [P] on the server and a row [Q], or rows [lanes, Q], on clients: see `local_work`. Elementwise arithmetic,
norms and inner products need not care: the gaps of a row are zero, and must stay zero.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from fedopt.algorithms import ALGORITHMS
from fedopt.algorithms.local_work import Finished, LocalWork
from fedopt.family import Family
from fedopt.registry import Registry
from fedopt.seeding import Purpose, stream
from fedopt.storage.record import Line
from fedopt.vectors.layout import Vectors
from fedopt.vectors.totals import Totals

DISPLACEMENT = "dx"
"""The name under which y - x travels up; client drift is measured from it."""

Weighting = Literal["samples", "uniform"]


@dataclass(frozen=True)
class ServerRound:
    """The round that `advance` ends."""

    number: int
    """From 1."""
    seed: int
    """The run's."""

    def stream(self, *key: int) -> np.random.Generator:
        """A random stream of this round's own: the same on any engine, resumed or not."""
        return stream(self.seed, Purpose.ALGORITHM, self.number, *key)


class Algorithm(Family, ABC):
    """Base of all algorithms; its fields are the keys of the experiment's [algorithm] section."""

    registry: ClassVar[Registry] = ALGORITHMS
    refuses_misspelled_hooks: ClassVar[bool] = True
    server_lr: float = Field(1.0, gt=0)
    """The factor of the mean update in the step of the global model."""
    weighting: Weighting = "samples"
    """The objective: clients weighted by their samples, p_i = n_i / n, or all alike, p_i = 1 / N. The same p_i weight
    every mean that the server takes."""

    sends_up: ClassVar[tuple[str, ...]] = (DISPLACEMENT,)
    """Names of the vectors that travel up."""
    sends_numbers: ClassVar[tuple[str, ...]] = ()
    """Names of the numbers that `advance` reads by `totals.number`: every client must send them."""
    record: ClassVar[type[Line] | None] = None
    """Numbers for the records, each described by the docstring below its field. A number of `finish` of that name is
    averaged over the clients that sent it, weighted as the objective is; `check` gives others."""

    @property
    def needs_mean_gradient(self) -> bool:
        """Whether `finish` reads `mean_gradient`, which costs a sum at every step."""
        return False

    @property
    def corrects_gradients(self) -> bool:
        """Whether `correct` does more than add the `shift`. Where it does not, SGD steps without a buffer."""
        return type(self).correct is not Algorithm.correct

    def server_state(self, x: Tensor) -> Vectors:
        return {}

    def client_state(self, x: Tensor) -> Vectors:
        return {}

    def sends_down(self, server: Vectors) -> Vectors:
        return {}

    def start(self, x: Tensor, down: Vectors, state: Vectors) -> Tensor | None:
        """Where the clients begin, [Q] or [lanes, Q]; None for x."""
        return None

    def begin(self, x: Tensor, down: Vectors, state: Vectors) -> Vectors:
        """Vectors for `shift` and `correct`, [Q] or [lanes, Q] each."""
        return {}

    def shift(self, prepared: Vectors) -> Tensor | None:
        """What is added to every gradient of the round, [lanes, Q]; None if nothing is."""
        return None

    def correct(self, gradient: Tensor, y: Tensor, prepared: Vectors) -> Tensor:
        """The gradient that the optimizer sees, [lanes, Q], from the raw one at y."""
        shift = self.shift(prepared)
        return gradient if shift is None else gradient + shift

    @abstractmethod
    def finish(self, work: LocalWork) -> Finished: ...

    @abstractmethod
    def advance(self, round_: ServerRound, x: Tensor, server: Vectors, totals: Totals) -> tuple[Tensor, Vectors]: ...

    def personal(self, x: Tensor, state: Vectors) -> Tensor:
        """The model that a client with this state would use itself, [P]."""
        return x

    @property
    def is_personal(self) -> bool:
        """Whether clients use models of their own, so that these are what is evaluated on their test shares."""
        return type(self).personal is not Algorithm.personal

    def check(self, server: Vectors, mean_state: Vectors) -> Mapping[str, float]:
        """Numbers for the records, from sum p_i v_i over all N clients of each vector that they keep."""
        return {}


def shares(weighting: Weighting, samples: list[int]) -> list[float]:
    """p_i, the share of each of the N clients in the objective; they add up to 1."""
    if weighting == "uniform":
        return [1.0 / len(samples)] * len(samples)
    everything = sum(samples)
    return [n / everything for n in samples]
