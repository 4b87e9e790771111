"""What happens to vectors in a round: computed by an algorithm, sent through a channel, combined by a rule."""

from __future__ import annotations

from dataclasses import dataclass, field

from fedopt.algorithms.base import Algorithm
from fedopt.channel.channel import NO_STAGES, Channel
from fedopt.round.gathering.base import Gathering
from fedopt.round.gathering.mean import Mean


@dataclass(frozen=True)
class Method:
    algorithm: Algorithm
    channel: Channel = NO_STAGES
    gathering: Gathering = field(default_factory=Mean)
