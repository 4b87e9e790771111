"""What the server knows between rounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from fedopt.round.method import Method
from fedopt.round.plausibility import Norms
from fedopt.vectors.layout import Vectors


@dataclass(frozen=True)
class ServerState:
    """A round makes a new one; nothing is changed in place."""

    round: int
    """Rounds completed."""
    x: Tensor
    """The global model, [P]."""
    server: Vectors
    """The method's vectors beside it, [P] each."""
    accepted: Mapping[int, int] = field(default_factory=dict)
    """For each client that has taken part, the last round whose update of it is in the model."""
    norms: Norms = field(default_factory=dict)
    """Lengths of the updates that the last rounds accepted."""

    @classmethod
    def initial(cls, x: Tensor, method: Method) -> ServerState:
        return cls(0, x, method.server_state(x))
