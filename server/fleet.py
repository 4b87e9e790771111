"""The Fleet API as this server offers it: Flower's own servicer, made prompt, watchful and able to count.

- A poll is held until there is a message, so that a message starts on its way when it is written and idle
  nodes cost nothing. (Flower answers at once and lets nodes poll every 3 s; a stock SuperNode works here too.)
- A heartbeat is held too, for a node that asks for it: when it breaks off, the node is gone, which is known at
  once and not after a minute without heartbeats.
- A reply waits with its client while there are as many on the server as it has room for.
- What travels is counted for each node.
- Who is refused learns why, and so does the log.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

import grpc
from flwr.common.constant import PUBLIC_KEY_HEADER
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
    RegisterNodeFleetRequest,
    RegisterNodeFleetResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest, SendNodeHeartbeatResponse
from flwr.proto.message_pb2 import PullObjectRequest, PullObjectResponse, PushObjectRequest, PushObjectResponse
from flwr.server.superlink.fleet.grpc_rere.fleet_servicer import FleetServicer
from flwr.server.superlink.fleet.message_handler import message_handler
from flwr.server.superlink.linkstate import InMemoryLinkState, LinkStateFactory
from flwr.supercore.date import now
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.object_store import NoObjectInStoreError
from flwr.supercore.utils import get_metadata_bytes

from fedopt.wire import TRAIN
from server.post import Post

HOLD = 10.0
"""Seconds a call is held at most."""

HOLDERS = 1500
"""Polls, and heartbeats, held at once; each takes a thread, and what comes later is answered at once."""

SMALL, DOWNLOADS = 2**16, 12
"""Objects above so many bytes (they have 5 MB at most) go down so many at a time."""

WATCHED = "fedopt-watch"
"""The metadata of a heartbeat that is to be held."""


class PromptFleetServicer(FleetServicer):
    """See the module."""

    def __init__(
        self, states: LinkStateFactory, *, authenticates: bool, post: Post, tell: Callable[[str], None]
    ) -> None:
        super().__init__(states, states.objectstore_factory, authenticates)
        self._post, self._tell = post, tell
        self._downloads = threading.Semaphore(DOWNLOADS)
        self._watched: dict[int, object] = {}
        self._holds, self._watches = threading.Semaphore(HOLDERS), threading.Semaphore(HOLDERS)

    @property
    def _state(self) -> InMemoryLinkState:
        state = self.state_factory.state()
        assert isinstance(state, InMemoryLinkState)
        return state

    def RegisterNode(  # noqa: N802 (the API's name)
        self, request: RegisterNodeFleetRequest, context: grpc.ServicerContext
    ) -> RegisterNodeFleetResponse:
        self._check_proof(request.public_key, context)
        if self.enable_supernode_auth:
            self._tell(f"refused a client from {context.peer()}: it came without a registered key")
        return super().RegisterNode(request, context)

    def ActivateNode(  # noqa: N802
        self, request: ActivateNodeRequest, context: grpc.ServicerContext
    ) -> ActivateNodeResponse:
        self._check_proof(request.public_key, context)
        node = self._state.get_node_id_by_public_key(request.public_key)
        if node is None:
            raise self._refusal(context, "its key is not registered here")
        if node in self._watched:
            raise self._refusal(context, "a client with its key is connected already")
        self._state.deactivate_node(node)  # whatever is left of an older connection
        answer = super().ActivateNode(request, context)
        self._post.arrived(node)
        return answer

    def _check_proof(self, key: bytes, context: grpc.ServicerContext) -> None:
        """The call is signed with some key: it must be the one that the node says is its own."""
        if get_metadata_bytes(context.invocation_metadata(), PUBLIC_KEY_HEADER) != key:
            raise self._refusal(context, "it proves another key than it claims")

    def _refusal(self, context: grpc.ServicerContext, reason: str) -> FlowerError:
        self._tell(f"refused a client from {context.peer()}: {reason}")
        return FlowerError(ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED, reason, public_details=reason)

    def SendNodeHeartbeat(  # noqa: N802
        self, request: SendNodeHeartbeatRequest, context: grpc.ServicerContext
    ) -> SendNodeHeartbeatResponse:
        response = super().SendNodeHeartbeat(request, context)
        if response.success and WATCHED in dict(context.invocation_metadata()):
            self._watch(request.node.node_id, context)
        return response

    def _watch(self, node: int, context: grpc.ServicerContext) -> None:
        """Holds the call. Should it break off, its node is gone."""
        held, over = object(), threading.Event()
        self._watched[node] = held

        def ended() -> None:
            over.set()
            if self._watched.get(node) is held:  # neither answered nor followed by another
                del self._watched[node]
                self._state.deactivate_node(node)
                self._post.knock(node)
                self._post.wake()

        if not context.add_callback(ended):
            ended()
        elif self._watches.acquire(blocking=False):
            over.wait(HOLD)
            self._watches.release()
        if context.is_active() and self._watched.get(node) is held:
            del self._watched[node]

    def PullMessages(  # noqa: N802
        self, request: PullMessagesRequest, context: grpc.ServicerContext
    ) -> PullMessagesResponse:
        node, until = request.node.node_id, time.monotonic() + HOLD
        context.add_callback(lambda: self._post.knock(node))  # so that a poll that broke off takes no mail
        response = PullMessagesResponse()
        while context.is_active():
            response = self._next_message(node)
            if response.messages_list or time.monotonic() >= until:
                break
            if not self._holds.acquire(blocking=False):
                break
            try:
                self._post.await_mail(node, until, context.is_active)
            finally:
                self._holds.release()
        self._post.count(node, response.ByteSize(), request.ByteSize())
        return response

    def _next_message(self, node: int) -> PullMessagesResponse:
        """What Flower finds by looking through all messages of all nodes, from the node's own mail."""
        while (message_id := self._post.take_mail(node)) is not None:
            message = self._state.message_ins_store.get(message_id)
            with suppress(NoObjectInStoreError):  # discarded meanwhile
                if message is not None:
                    tree = self._state.object_store.get_object_tree(message_id)
                    message.metadata.delivered_at = now().isoformat()
                    return PullMessagesResponse(messages_list=[message_to_proto(message)], message_object_trees=[tree])
        return PullMessagesResponse()

    def PushMessages(  # noqa: N802
        self, request: PushMessagesRequest, context: grpc.ServicerContext
    ) -> PushMessagesResponse:
        node = request.node.node_id
        if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "one reply at a time, with its objects")
        if request.messages_list[0].metadata.src_node_id != node:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a node replies for itself alone")
        reply = request.messages_list[0].metadata
        order, brings_vectors = reply.reply_to_message_id, reply.message_type == TRAIN
        if brings_vectors:
            self._post.await_room(order, lambda: context.is_active() and order in self._state.message_ins_store)
        response = message_handler.push_messages(request, self._state)
        self._post.count(node, response.ByteSize(), request.ByteSize())
        if order in self._state.message_ins_id_to_message_res_id:
            self._post.announced(response.session_id, order, set(response.objects_to_push))
        else:
            self._post.dealt_with(order)
        return response

    def PushObject(  # noqa: N802
        self, request: PushObjectRequest, context: grpc.ServicerContext
    ) -> PushObjectResponse:
        response = super().PushObject(request, context)
        self._post.count(request.node.node_id, response.ByteSize(), request.ByteSize())
        if response.stored:
            self._post.uploaded(request.session_id, request.object_id)
        return response

    def PullObject(  # noqa: N802
        self, request: PullObjectRequest, context: grpc.ServicerContext
    ) -> PullObjectResponse:
        if len(self._state.object_store.get(request.object_id) or b"") > SMALL:
            self._downloads.acquire()  # an answer takes memory until it is sent, and so for as long as its call lasts
            if not context.add_callback(self._downloads.release):
                self._downloads.release()
        response = super().PullObject(request, context)
        self._post.count(request.node.node_id, response.ByteSize(), request.ByteSize())
        return response
