"""A node that joins as a client and then misuses the Fleet API."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc
from flwr.app import Error, Message
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import (
    PushMessagesRequest,
)
from flwr.proto.message_pb2 import ObjectTree, PushObjectRequest
from flwr.supercore.inflatable.inflatable_object import get_object_tree

from clients.deployed.connection import (
    Connection,
    Credentials,
)
from fedopt.errors import FedoptError
from tests.swarm import answer

METHODS = ("RegisterNode", "ActivateNode", "PullMessages", "PushMessages", "PullObject", "PushObject", "GetRun")


QUICK = 10.0
"""Seconds for one call of an attack."""


class Attacker(Connection):
    """A node that joins as client 2."""

    CLIENT = 2

    def __init__(self, address: str) -> None:
        super().__init__(address, Credentials(None, None))
        self.address = address
        self.codes: list[str] = []
        """How its last calls ended."""
        self.older: list[Message] = []
        """Replies of earlier rounds."""

    def call(self, method: str, request: Any, timeout: float = QUICK) -> Any:
        """The answer, or None where the call was refused."""
        try:
            found = getattr(self._stub, method)(request, timeout=timeout)
        except grpc.RpcError as error:
            self.codes.append(error.code().name)
            return None
        self.codes.append("OK")
        return found

    def raw(self, method: str, data: bytes, **options: Any) -> None:
        """The method with any bytes."""
        with suppress(grpc.RpcError):
            self._channel.unary_unary(f"/flwr.proto.Fleet/{method}")(data, timeout=QUICK, **options)

    def reply(self, order: Message) -> Message:
        reply = Message(answer(order, self.CLIENT), reply_to=order)
        reply.metadata.__dict__["_message_id"] = reply.object_id
        return reply

    def header(self, reply: Message, tree: ObjectTree | None = None, /, **changes: Any) -> PushMessagesRequest:
        """The announcement of a reply, some of whose metadata are others."""
        proto = message_to_proto(remove_content_from_message(reply))
        for name, value in changes.items():
            setattr(proto.metadata, name, value)
        return PushMessagesRequest(
            node=self._node, messages_list=[proto], message_object_trees=[tree or get_object_tree(reply)]
        )

    def upload(self, order: Message, session: str, object_id: str, data: bytes) -> Any:
        request = PushObjectRequest(
            node=self._node,
            run_id=order.metadata.run_id,
            object_id=object_id,
            object_content=data,
            session_id=session,
        )
        return self.call("PushObject", request)

    def give_up(self, order: Message) -> None:
        """Says that it failed, if it can still say anything."""
        with suppress(FedoptError):
            self.send(Message(Error(2, "[/attack/done] \x1b[31m"), reply_to=order), math.nan)


Attack = Callable[[Attacker, Message], None]
