"""What happens to vectors in a round: computed by an algorithm, sent through a channel, combined by a rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel
from torch import Tensor

from fedopt.algorithms.base import SURVEYED, Algorithm, ServerRound
from fedopt.channel.channel import NO_STAGES, Channel
from fedopt.errors import InvalidExperiment
from fedopt.optimizers.moments import NO_MOMENTS, Moments
from fedopt.round.gathering.base import Gathering
from fedopt.round.gathering.mean import Mean
from fedopt.schedules.plan import RateFactors
from fedopt.schedules.server import ServerSettings
from fedopt.vectors.layout import Vectors
from fedopt.vectors.totals import Totals


@dataclass(frozen=True)
class Method:
    """All vectors of a federation: the algorithm's, the channel stages', and moments that outlive a round."""

    algorithm: Algorithm
    channel: Channel = NO_STAGES
    gathering: Gathering = field(default_factory=Mean)
    moments: Moments = NO_MOMENTS
    server: ServerSettings = field(default_factory=ServerSettings)
    """How the server's rate changes over the rounds."""

    @property
    def sends_up(self) -> tuple[str, ...]:
        """Names of the vectors that travel up."""
        return (*self.algorithm.sends_up, *self.moments.sends_up)

    @property
    def numbers(self) -> frozenset[str]:
        """Names of the numbers that a client may send: for the server, or for the records."""
        record = self.algorithm.record
        return frozenset((*self.algorithm.sends_numbers, *(record.model_fields if record is not None else ())))

    def server_state(self, x: Tensor) -> Vectors:
        """What the server keeps beside the model, before the first round, [P] each."""
        return {**self.algorithm.server_state(x), **self.moments.server_state(x)}

    def client_state(self, x: Tensor) -> Vectors:
        """What a client keeps between rounds, before its first one, [P] each."""
        up = dict.fromkeys(self.sends_up, x)
        return {**self.algorithm.client_state(x), **self.moments.client_state(x), **self.channel.client_state(up)}

    def names_down(self, x: Tensor) -> list[str]:
        """Names of the vectors that travel down with work, beside x [P]."""
        surveyed = [SURVEYED] if self.algorithm.surveys else []
        return [*self.sends_down(self.server_state(x)), *surveyed]

    def sends_down(self, server: Vectors) -> Vectors:
        return {**self.algorithm.sends_down(server), **self.moments.sends_down(server)}

    def numbers_of(self, round_: ServerRound, totals: Totals) -> dict[str, float]:
        """Means over the clients of the numbers that they sent, and what the algorithm reports beside them."""
        sent = {name: totals.number(name) for name in sorted(totals.numbers())}
        algorithm = self._of_round(round_)
        if type(algorithm).report is Algorithm.report:
            return sent
        return {**sent, **algorithm.report(self.channel.release(totals, round_.seed, round_.number))}

    def advance(self, round_: ServerRound, x: Tensor, server: Vectors, totals: Totals) -> tuple[Tensor, Vectors]:
        """The next model and server state, from what the clients sent."""
        released = self.channel.release(totals, round_.seed, round_.number)
        x_new, server_new = _checked(self.algorithm, self._of_round(round_).advance(round_, x, server, released), x)
        return x_new, {**server_new, **self.moments.advance(released)}

    def _of_round(self, round_: ServerRound) -> Algorithm:
        return at_server_rate(self.algorithm, self.server, round_.number, round_.factors)


def _checked(algorithm: Algorithm, returned: object, x: Tensor) -> tuple[Tensor, Vectors]:
    """What `advance` returned; InvalidExperiment if it is not a model and a state."""
    if isinstance(returned, tuple) and len(returned) == 2:
        x_new, server = returned
        if isinstance(x_new, Tensor) and x_new.shape == x.shape and isinstance(server, Mapping):
            return x_new, server
        found = f"({_kind(x_new)}, {_kind(server)})"
    else:
        found = _kind(returned)
    raise InvalidExperiment(
        f"{type(algorithm).__name__}.advance must return the next model, a tensor of the shape {tuple(x.shape)}, and "
        f"the server's state, a dict, as in `return x, server`; it returned {found}"
    )


def _kind(value: object) -> str:
    return f"a tensor of the shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"{type(value).__name__}"


def at_server_rate(algorithm: Algorithm, settings: ServerSettings, round_: int, factors: RateFactors) -> Algorithm:
    """The algorithm with the server_lr of this round."""
    plan = settings.plan(algorithm.server_lr)
    if plan.is_constant and factors.server == 1.0:
        return algorithm
    return BaseModel.model_copy(algorithm, update={"server_lr": factors.server * plan.rate(round_)})
