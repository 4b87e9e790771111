"""Training and sending: what clients make of a round's orders, as it arrives at the server or as it travels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from clients.lanes.training import Job, LaneTrainer, Result
from fedopt.channel.base import Payload
from fedopt.channel.channel import Channel, SenderKey, payload_bytes
from fedopt.drift.gradients import GRADIENT
from fedopt.round.federation import Broadcast
from fedopt.vectors.layout import Vectors


@dataclass(frozen=True)
class Delivered:
    """A result whose vectors are those that the server receives."""

    result: Result
    bytes_up: int
    """Bytes of the arrays that travel."""


class SendingTrainer:
    """Trains lanes, then sends each client's vectors through the channel."""

    def __init__(self, trainer: LaneTrainer, channel: Channel, seed: int) -> None:
        """`seed` is the run's."""
        self._trainer, self._channel, self._seed = trainer, channel, seed

    def deliver(self, broadcast: Broadcast, jobs: Sequence[Job]) -> list[Delivered]:
        """In a simulation: sends and receives. Vectors with buffers in their job are written there."""
        if not self._channel or broadcast.survey:
            return [Delivered(result, payload_bytes(result.up)) for result in self._trainer.train(broadcast, jobs)]
        job_of = {job.order.client: job for job in jobs}
        delivered: list[Delivered] = []
        for result in self._trainer.train(broadcast, [_for_algorithm(job) for job in jobs]):
            job = job_of[result.order.client]
            payload, state = self._send(broadcast, job, result)
            up, measured = _apart(result.up)
            received = self._channel.receive(_apart(payload)[0], up)
            arrived = _into(job.up_buffers, {**received, **measured})
            kept = replace(result, up=arrived, state=_into(job.state_buffers, state))
            delivered.append(Delivered(kept, payload_bytes(payload)))
        return delivered

    def led_to(self, broadcast: Broadcast, job: Job) -> tuple[Result, Tensor]:
        """One job's result as the client has it before it sends anything, and the model [P + S] of the client then."""
        return self._trainer.led_to(broadcast, _for_algorithm(job))

    def encode(self, broadcast: Broadcast, job: Job) -> tuple[Result, Payload]:
        """In a deployment: the result with the client's whole new state, and what travels for it."""
        (result,) = self._trainer.train(broadcast, [_for_algorithm(job)])
        if broadcast.survey:
            return result, result.up
        payload, state = self._send(broadcast, job, result)
        return replace(result, state=state), payload

    def _send(self, broadcast: Broadcast, job: Job, result: Result) -> tuple[Payload, dict[str, Tensor]]:
        """What travels, and the client's new state for the algorithm and for the stages."""
        up, measured = _apart(result.up)
        key = SenderKey(self._seed, broadcast.round, job.order.client)
        payload, kept = self._channel.send(up, job.state, key)
        return {**payload, **measured}, {**result.state, **kept}


def _for_algorithm(job: Job) -> Job:
    """The job without the state of channel stages."""
    return replace(job, state=Channel.without_state(job.state), state_buffers={}, up_buffers={})


def _apart(vectors: Vectors) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the algorithm sends, and what is sent for measures alone, which no stage touches."""
    measured = {name: vector for name, vector in vectors.items() if name == GRADIENT}
    return {name: vector for name, vector in vectors.items() if name not in measured}, measured


def _into(buffers: Vectors, vectors: Vectors) -> dict[str, Tensor]:
    """The vectors, in their buffers where there are some."""
    return {name: buffers[name].copy_(vector) if name in buffers else vector for name, vector in vectors.items()}
