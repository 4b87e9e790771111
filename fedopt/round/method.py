"""What happens to vectors in a round: computed by an algorithm, sent through a channel, combined by a rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pydantic import BaseModel
from torch import Tensor, nn

from fedopt.algorithms.base import SURVEYED, Algorithm, ServerRound
from fedopt.channel.channel import NO_STAGES, Channel
from fedopt.errors import InvalidExperiment
from fedopt.optimizers.moments import NO_MOMENTS, Moments
from fedopt.round.batchnorm import NO_BATCH_NORMS, BatchNorms
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
    norms: BatchNorms = NO_BATCH_NORMS
    """What becomes of BatchNorm; without a layout until `on` a module."""

    def on(self, module: nn.Module) -> Method:
        """For this module's vectors."""
        return replace(self, norms=BatchNorms.of(self.norms.policy, module, self.algorithm))

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
        own = self.algorithm.server_state(self.norms.trained(x))
        return {**self.norms.widen(own), **self.moments.server_state(x)}

    def client_state(self, x: Tensor) -> Vectors:
        """What a client keeps between rounds, before its first one, [P] each."""
        up = dict.fromkeys(self.sends_up, x)
        own = self.norms.widen(self.algorithm.client_state(self.norms.trained(x)))
        norms = self.norms.client_state(x)
        return {**own, **norms, **self.moments.client_state(x), **self.channel.client_state(up)}

    def names_down(self, x: Tensor) -> list[str]:
        """Names of the vectors that travel down with work, beside x [P]."""
        surveyed = [SURVEYED] if self.algorithm.surveys else []
        return [*self.sends_down(self.server_state(x)), *surveyed]

    def sends_down(self, server: Vectors) -> Vectors:
        own = self.norms.widen(self.algorithm.sends_down(self.norms.cut(server)))
        return {**own, **self.moments.sends_down(server)}

    def numbers_of(self, round_: ServerRound, totals: Totals) -> dict[str, float]:
        """Means over the clients of the numbers that they sent, and what the algorithm reports beside them."""
        sent = {name: totals.number(name) for name in sorted(totals.numbers())}
        algorithm = self._of_round(round_)
        if type(algorithm).report is Algorithm.report:
            return sent
        released = self.channel.release(totals, round_.seed, round_.number)
        return {**sent, **algorithm.report(self.norms.of_totals(released))}

    def advance(self, round_: ServerRound, x: Tensor, server: Vectors, totals: Totals) -> tuple[Tensor, Vectors]:
        """The next model and server state, from what the clients sent."""
        released = self.channel.release(totals, round_.seed, round_.number)
        norms, trained = self.norms, self.norms.trained(x)
        algorithm = self._of_round(round_)
        returned = algorithm.advance(round_, trained, norms.cut(server), norms.of_totals(released))
        x_new, server_new = _checked(self.algorithm, returned, trained)
        found = norms.advanced(x, x_new, released)
        negative = norms.negative_variance({norms.carrier: found})
        if negative is not None:
            raise InvalidExperiment(f"gathering.name: {self.gathering.name} makes {negative} negative; choose mean")
        return found, {**norms.widen(server_new), **self.moments.advance(released)}

    @property
    def is_personal(self) -> bool:
        """Whether clients use models of their own, so that these are what is evaluated on their test shares."""
        return self.algorithm.is_personal or self.norms.is_personal

    def personal(self, x: Tensor, state: Vectors) -> Tensor:
        """The model that a client with this state would use itself."""
        return self.norms.personal(x, state) if self.norms.is_personal else self.algorithm.personal(x, state)

    def check(self, server: Vectors, mean_state: Vectors) -> Mapping[str, float]:
        """The algorithm's numbers for the records from the mean of all clients' states."""
        return self.algorithm.check(self.norms.cut(server), self.norms.cut(mean_state))

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
