"""Limits on what a client may send, computed from the size of the model and checked before anything is stored."""

from __future__ import annotations

from dataclasses import dataclass

from server.flower_internals import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE

SMALL = 2**16
"""Bytes that any reply may have in addition to its vectors: fields, headers, or the reason of an error."""

READ_AT_ONCE = 2**28
"""Bytes of messages that the server reads at once over all connections."""

FEW = 16
"""Objects that any reply may have in addition to its arrays."""


@dataclass(frozen=True)
class ReplyLimit:
    """The limits of one reply."""

    bytes: int
    objects: int

    @classmethod
    def of(cls, vector_bytes: int) -> ReplyLimit:
        """The limits of a reply whose vectors have `vector_bytes` in total; 0 for a reply without vectors."""
        # Each object has a header and its id is in its parent: together less than 1/1000 of a full chunk.
        return cls(
            vector_bytes + vector_bytes // 1024 + SMALL,
            FEW + 4 * (vector_bytes // FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE + FEW),
        )


@dataclass(frozen=True)
class MessageLimit:
    """The limits of one gRPC message."""

    call: int
    """Bytes of any call that does not upload an object."""
    upload: int
    """Bytes of a call that uploads an object."""

    @classmethod
    def of(cls, vector_bytes: int) -> MessageLimit:
        """For a model of `vector_bytes`. Arrays travel in chunks, and a reply's header lists the ids of all chunks."""
        ids = vector_bytes // 1024
        return cls(SMALL + ids, min(vector_bytes, FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE) + SMALL + ids)

    @property
    def largest(self) -> int:
        return max(self.call, self.upload)

    @property
    def readers(self) -> int:
        """The number of messages that may be read at once."""
        return max(4, READ_AT_ONCE // self.largest)
