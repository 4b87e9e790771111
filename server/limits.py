"""How much a client may send, from the size of the model: checked before it is read or stored."""

from __future__ import annotations

from dataclasses import dataclass

from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE

SMALL = 2**16
"""Bytes beside vectors that any reply may have: its fields and headers, or the reason why there is none."""

READ_AT_ONCE = 2**28
"""Bytes of messages that the server reads at once, of all connections together."""

FEW = 16
"""Objects beside arrays that any reply may have."""


@dataclass(frozen=True)
class ReplyLimit:
    """What one reply may amount to."""

    bytes: int
    objects: int

    @classmethod
    def of(cls, vector_bytes: int) -> ReplyLimit:
        """For a reply whose vectors are so large in all; 0 for a reply without any."""
        # Each object has a head, and its id stands in its parent's: less than a thousandth of a whole chunk.
        return cls(
            vector_bytes + vector_bytes // 1024 + SMALL,
            FEW + 4 * (vector_bytes // FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE + FEW),
        )


@dataclass(frozen=True)
class MessageLimit:
    """What one gRPC message may amount to."""

    call: int
    """Bytes of any call but the one that uploads an object."""
    upload: int
    """Bytes of the one that does."""

    @classmethod
    def of(cls, vector_bytes: int) -> MessageLimit:
        """For a model of so many bytes. Arrays travel in chunks; a reply's header lists the ids of all of them."""
        ids = vector_bytes // 1024
        return cls(SMALL + ids, min(vector_bytes, FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE) + SMALL + ids)

    @property
    def largest(self) -> int:
        return max(self.call, self.upload)

    @property
    def readers(self) -> int:
        """How many messages may be read at once."""
        return max(4, READ_AT_ONCE // self.largest)
