"""The contract of federated algorithms: a few pure functions of vectors, and the algorithm's own settings.

An algorithm knows nothing of transport, engine or clock; chance comes from the keyed streams of a `ServerRound` alone.
In the order of a round:

    common_steps   how many steps all clients of a round take, where the algorithm draws that
    server_state   vectors that the server keeps beside the model x, before the first round
    client_state   vectors that a client keeps between rounds, before its first one
    sends_down     vectors that travel down beside x
    start          where a client begins, if not at x
    begin          what a client prepares once a round
    moments        what the local optimizer's moments start from, if not from what local.state says
    shift          what is added to every raw gradient before the optimizer sees it, or
    correct        any other correction of a gradient, at each step, or
    gradient       what the optimizer sees, from gradients at any points on the step's minibatch
    push           what is added to every step behind the optimizer
    finish         what travels up (vectors and numbers), and the client's new state
    advance        the next x and the next server state, from means of what travelled up
    report         numbers for the records from these means
    personal       the model that a client would use itself
    check          numbers for the records from the mean of all clients' states

With `surveys`, a round begins with an exchange of its own: the cohort sends its full gradients at x, and their mean
comes down as `down["gradient"]`; `advance` finds it in `server["gradient"]`. With `local_defaults` an algorithm has
other defaults in [local], and `objection` says what it cannot be combined with.

A vector is [P] on the server and a row [Q], or rows [lanes, Q], on clients: see `local_work`. Elementwise arithmetic,
norms and inner products need not care: the gaps of a row are zero, and must stay zero.

Under a schedule in [server], `self.server_lr` is the rate of the round in every hook of a round.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator
from torch import Tensor

from fedopt.algorithms import ALGORITHMS
from fedopt.algorithms.local_work import Finished, LocalStart, LocalWork, MinibatchGradient
from fedopt.family import Family
from fedopt.optimizers.base import Optimizer
from fedopt.optimizers.local import LocalSettings
from fedopt.registry import Registry
from fedopt.schedules.plan import NO_FACTORS, RateFactors
from fedopt.section import wrong
from fedopt.seeding import Purpose, stream
from fedopt.storage.record import Line
from fedopt.vectors.layout import Vectors
from fedopt.vectors.totals import Totals

DISPLACEMENT = "dx"
"""The name under which y - x travels up; client drift is measured from it."""

SURVEYED = "gradient"
"""The name under which the cohort's mean full gradient at x comes down, where the algorithm `surveys`."""

Weighting = Literal["samples", "uniform"]


@dataclass(frozen=True)
class ServerRound:
    """A round, as the server and its clients know it."""

    number: int
    """From 1."""
    seed: int
    """The run's."""
    factors: RateFactors = NO_FACTORS
    """Of the rates of this round, where they follow from test losses."""

    def stream(self, *key: int) -> np.random.Generator:
        """A random stream of this round's own: the same on any engine, resumed or not."""
        return stream(self.seed, Purpose.ALGORITHM, self.number, *key)


@dataclass(frozen=True)
class Participation:
    """Who takes part in a round."""

    clients: int
    """N, all clients."""
    cohort: int
    """Clients of a round."""


class Algorithm(Family, ABC):
    """Base of all algorithms; its fields are the keys of the experiment's [algorithm] section."""

    registry: ClassVar[Registry] = ALGORITHMS
    refuses_misspelled_hooks: ClassVar[bool] = True
    server_lr: float = Field(1.0, gt=0)
    """The factor of the mean update in the step of the global model. Under a schedule in [server], this is the first
    rate, and hooks of a round read the rate of that round here."""
    weighting: Weighting = "samples"
    """The objective: clients weighted by their samples, p_i = n_i / n, or all alike, p_i = 1 / N. The same p_i weight
    every mean that the server takes."""

    sends_up: ClassVar[tuple[str, ...]] = (DISPLACEMENT,)
    """Names of the vectors that travel up."""
    sends_numbers: ClassVar[tuple[str, ...]] = ()
    """Names of the numbers that `advance` reads by `totals.number`: every client must send them."""
    record: ClassVar[type[Line] | None] = None
    """Numbers for the records, each described by the docstring below its field. A number of `finish` of that name is
    averaged over the clients that sent it, weighted as the objective is; `report` and `check` give others."""

    surveys: ClassVar[bool] = False
    """Whether clients need the cohort's mean full gradient at x before they step. It costs an exchange and a pass over
    their data, each round."""
    reads_schedule: ClassVar[bool] = False
    """Whether `begin` or `finish` reads rates, steps or the optimizer, which a training loop of the user's own does not
    know beforehand."""
    pools_data: ClassVar[bool] = False
    """Whether all training data are in one place, as those of one client, which only a simulation can have."""
    local_defaults: ClassVar[Mapping[str, Any]] = {}
    """Defaults of keys of the experiment's [local] section under this algorithm, where they are others."""

    @model_validator(mode="after")
    def _hooks_take_a_local_start(self) -> Self:
        for hook in ("start", "begin"):
            if len(signature(getattr(type(self), hook)).parameters) != 2:
                raise wrong(
                    "name",
                    f"{hook} of {type(self).__name__} must take (self, local); write local.x, local.down and "
                    "local.state for x, down and state",
                )
        return self

    def objection(self, local: LocalSettings, terms: Participation) -> str | None:
        """Why the algorithm cannot be run so: a sentence without a period. None if it can."""
        return None

    @property
    def needs_mean_gradient(self) -> bool:
        """Whether `finish` reads `mean_gradient`, which costs a sum at every step."""
        return False

    @property
    def needs_one_rate(self) -> bool:
        """Whether it computes with the learning rates of the steps, or takes a displacement for a gradient, so that all
        parameters must have the same rate."""
        return self.reads_schedule

    @property
    def corrects_gradients(self) -> bool:
        """Whether a gradient is corrected by more than the `shift`. Where it is not, SGD steps without a buffer."""
        return type(self).correct is not Algorithm.correct or self.evaluates_elsewhere

    @property
    def evaluates_elsewhere(self) -> bool:
        """Whether a step needs gradients at other points than its own."""
        return type(self).gradient is not Algorithm.gradient

    @property
    def pushes(self) -> bool:
        """Whether steps are changed behind the optimizer."""
        return type(self).push is not Algorithm.push

    @property
    def fits_own_loops(self) -> bool:
        """Whether a training loop of the user's own can carry the algorithm: it changes gradients of steps, at most."""
        changes_steps = self.evaluates_elsewhere or self.pushes or self.draws_steps
        return not (changes_steps or self.surveys or self.reads_schedule or self.pools_data)

    @property
    def draws_steps(self) -> bool:
        """Whether the algorithm draws the number of local steps itself."""
        return type(self).common_steps is not Algorithm.common_steps

    def common_steps(self, round_: ServerRound) -> int | None:
        """How many steps every client of this round takes, in place of what [local] says; None to leave it at that.
        It must follow from the algorithm's settings and from the round's streams alone: clients compute it as well."""
        return None

    @property
    def step_scale(self) -> float:
        """The factor of the optimizer's step, beside which `push` is added."""
        return 1.0

    def server_state(self, x: Tensor) -> Vectors:
        return {}

    def client_state(self, x: Tensor) -> Vectors:
        return {}

    def sends_down(self, server: Vectors) -> Vectors:
        return {}

    def start(self, local: LocalStart) -> Tensor | None:
        """Where the clients begin, [Q] or [lanes, Q]; None for x."""
        return None

    def begin(self, local: LocalStart) -> Vectors:
        """Vectors for the hooks of the steps, [Q] or [lanes, Q] each, or a number for each lane, [lanes, 1]."""
        return {}

    def moments(self, local: LocalStart, optimizer: Optimizer) -> Vectors:
        """What the optimizer's moments start from, by its own names, [Q] or [lanes, Q] each; one that is not named
        starts at zero. Empty for what `local.state` says, which must be reset otherwise."""
        return {}

    def shift(self, prepared: Vectors) -> Tensor | None:
        """What is added to every gradient of the round, [lanes, Q]; None if nothing is."""
        return None

    def correct(self, gradient: Tensor, y: Tensor, prepared: Vectors) -> Tensor:
        """The gradient that the optimizer sees, [lanes, Q], from the raw one at y."""
        shift = self.shift(prepared)
        return gradient if shift is None else gradient + shift

    def gradient(self, at: MinibatchGradient, y: Tensor, prepared: Vectors) -> Tensor:
        """The gradient that the optimizer sees at y, [lanes, Q].

        `at(point)` is the raw gradient at a point [lanes, Q] or [Q] on this step's minibatch. Each call costs one
        evaluation, and the first one gives the training loss. `prepared` has the active lanes alone, and its vectors
        [lanes, Q] may be changed in place.
        """
        return self.correct(at(y), y, prepared)

    def push(self, prepared: Vectors) -> Tensor | None:
        """What is added to the direction of every step behind the optimizer, [lanes, Q]; None if nothing is:
        y <- y - lr (step_scale * the optimizer's direction + this)."""
        return None

    @abstractmethod
    def finish(self, work: LocalWork) -> Finished: ...

    @abstractmethod
    def advance(self, round_: ServerRound, x: Tensor, server: Vectors, totals: Totals) -> tuple[Tensor, Vectors]: ...

    def report(self, totals: Totals) -> Mapping[str, float]:
        """Numbers for the records that the server knows every round, from what `advance` got."""
        return {}

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


def own_loop_refusal(algorithm: Algorithm) -> str:
    """The sentence for an algorithm that a training loop of the user's own does not support."""
    if algorithm.pools_data:
        return pooled_refusal(algorithm)
    return (
        f"{algorithm.name} does more in a step than correct its gradient, or needs the rates beforehand, which a "
        "training loop of your own does not support; run it with fedopt run, or with fedopt server and fedopt client"
    )


def pooled_refusal(algorithm: Algorithm) -> str:
    """The sentence for an algorithm that a federation of machines cannot run."""
    return f"{algorithm.name} needs the data of all clients in one place; run it with fedopt run"


def shares(weighting: Weighting, samples: list[int]) -> list[float]:
    """p_i, the share of each of the N clients in the objective; they add up to 1."""
    if weighting == "uniform":
        return [1.0 / len(samples)] * len(samples)
    everything = sum(samples)
    return [n / everything for n in samples]
