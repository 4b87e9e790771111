"""The stages of an experiment as one channel; without stages vectors travel as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from fedopt.channel.base import BadPayload, ChannelKey, Payload, Stage
from fedopt.vectors.layout import Vectors
from fedopt.vectors.totals import Totals


@dataclass(frozen=True)
class Channel:
    """Stages in the order in which a client sends through them."""

    stages: tuple[Stage, ...] = ()

    def __bool__(self) -> bool:
        """Whether there is any stage."""
        return bool(self.stages)

    def client_state(self, like: Vectors) -> dict[str, Tensor]:
        """What a client keeps for all stages, [P] each; names begin with the stage's place."""
        return {
            f"{_prefix(place)}{name}": vector
            for place, stage in enumerate(self.stages)
            for name, vector in stage.client_state(like).items()
        }

    @staticmethod
    def without_state(state: Vectors) -> dict[str, Tensor]:
        """A client's state without that of its channel."""
        return {name: vector for name, vector in state.items() if not name.startswith(PREFIX)}

    def send(self, up: Vectors, state: Vectors, key: SenderKey) -> tuple[Payload, dict[str, Tensor]]:
        """The payload of one client, and its new state for all stages; `up` are [P]."""
        payload: Payload = up
        new: dict[str, Tensor] = {}
        for place, stage in enumerate(self.stages):
            prefix = _prefix(place)
            own = {name.removeprefix(prefix): vector for name, vector in state.items() if name.startswith(prefix)}
            payload, kept = stage.send(payload, own, ChannelKey(key.seed, key.round, place, key.client))
            if kept.keys() != own.keys():
                raise TypeError(f"{stage.name}: send returned the state {sorted(kept)}, not {sorted(own)}")
            new |= {f"{prefix}{name}": vector for name, vector in kept.items()}
        return payload, new

    def receive(self, payload: Payload, like: Vectors) -> Vectors:
        """The vectors that the server takes it for, of just the names, shapes, dtypes and device of `like`."""
        for stage in reversed(self.stages):
            payload = stage.receive(payload, like)
        if payload.keys() != like.keys():
            raise BadPayload(f"it decodes to {sorted(payload)} where {sorted(like)} belong")
        for name, vector in payload.items():
            if vector.shape != like[name].shape or vector.dtype != like[name].dtype:
                raise BadPayload(f"its {name} decodes to {vector.dtype} {tuple(vector.shape)}")
        return payload

    def release(self, totals: Totals, seed: int, round_: int) -> Totals:
        for place, stage in enumerate(self.stages):
            totals = stage.release(totals, ChannelKey(seed, round_, place))
        return totals


NO_STAGES = Channel()


@dataclass(frozen=True)
class SenderKey:
    """Who sends in which round."""

    seed: int
    round: int
    client: int


def payload_bytes(*groups: Mapping[str, Tensor]) -> int:
    """Bytes of the arrays alone."""
    return sum(array.nbytes for group in groups for array in group.values())


PREFIX = "channel."
"""Names of the stages' state in a client's state begin with this."""


def _prefix(place: int) -> str:
    return f"{PREFIX}{place}."
