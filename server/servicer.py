"""The Fleet API as this server offers it: Flower's own servicer, made prompt, watchful and able to count.

- A poll is held until there is a message, so that a message starts on its way when it is written and idle
  nodes cost nothing. (Flower answers at once and lets nodes poll every 3 s; a stock SuperNode works here too.)
- A heartbeat is held too, for a node that asks for it: when it breaks off, the node is gone, which is known at
  once and not after a minute without heartbeats.
- A reply waits with its client while there are as many on the server as it has room for.
- A node replies to orders that were sent to it, once to each, within what a reply may amount to; it fetches and
  confirms what was sent to it. Flower asks no more of a node than that it is one.
- What travels is counted for each node.
- Who is refused learns why, and so does the log.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
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
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ConfirmMessageReceivedResponse,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.server.superlink.fleet.grpc_rere.fleet_servicer import FleetServicer
from flwr.server.superlink.fleet.message_handler import message_handler
from flwr.server.superlink.linkstate import InMemoryLinkState, LinkStateFactory
from flwr.supercore.constant import NodeStatus
from flwr.supercore.date import now
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.inflatable.inflatable_object import is_valid_sha256_hash, iterate_object_tree
from flwr.supercore.object_store import NoObjectInStoreError
from flwr.supercore.utils import get_metadata_bytes

from fedopt.text import plain
from fedopt.wire import TRAIN
from server.limits import ReplyLimit
from server.mailbox import Post
from server.refusal_log import Complaints

HOLD = 10.0
"""Seconds a call is held at most."""

HOLDERS = 1500
"""Polls, and heartbeats, held at once; each takes a thread, and what comes later is answered at once."""

SMALL, DOWNLOADS = 2**16, 12
"""Objects above so many bytes (they have 5 MB at most) go down so many at a time."""

HELD_FOR_ONE = 4
"""Calls of each kind that are held for one node at once; a client that lost its connection may have an old one."""

MOST_NODES = 4096
"""Nodes that are remembered where anyone may register; then those that are not on line are forgotten."""

WATCHED = "fedopt-watch"
"""The metadata of a heartbeat that is to be held."""


class PromptFleetServicer(FleetServicer):
    """See the module."""

    def __init__(self, states: LinkStateFactory, *, authenticates: bool, post: Post, complaints: Complaints) -> None:
        super().__init__(states, states.objectstore_factory, authenticates)
        self._post, self._complaints = post, complaints
        self._downloads = threading.Semaphore(DOWNLOADS)
        self._watched: dict[int, object] = {}
        self._holds, self._watches = Holds(), Holds()

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
            self._complain(context, "it came without a registered key")
        elif len(self._state.nodes) >= MOST_NODES and not self._forget_absent_nodes():
            raise self._refusal(context, f"{MOST_NODES} nodes are connected already")
        return super().RegisterNode(request, context)

    def _forget_absent_nodes(self) -> int:
        """How many nodes were forgotten. One that comes back registers again."""
        state = self._state
        with state.lock:
            absent = [node for node in state.nodes.values() if node.status != NodeStatus.ONLINE]
            for node in absent:
                del state.nodes[node.node_id]
                state.node_public_key_to_node_id.pop(node.public_key, None)
                state.owner_to_node_ids.get(node.owner_aid, set()).discard(node.node_id)
        return len(absent)

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

    def _complain(self, context: grpc.ServicerContext, reason: str) -> None:
        self._complaints.add(reason, f"refused a client from {plain(context.peer())}: {reason}")

    def _refusal(self, context: grpc.ServicerContext, reason: str) -> FlowerError:
        self._complain(context, reason)
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
        elif self._watches.acquire(node):
            over.wait(HOLD)
            self._watches.release(node)
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
            if not self._holds.acquire(node):
                break
            try:
                self._post.await_mail(node, until, context.is_active)
            finally:
                self._holds.release(node)
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
                    objects = frozenset(item.object_id for item in iterate_object_tree(tree))
                    self._post.offered(node, message_id, objects)
                    return PullMessagesResponse(messages_list=[message_to_proto(message)], message_object_trees=[tree])
        return PullMessagesResponse()

    def PushMessages(  # noqa: N802
        self, request: PushMessagesRequest, context: grpc.ServicerContext
    ) -> PushMessagesResponse:
        node = request.node.node_id
        if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
            self._abort(context, "one reply at a time, with its objects")
        reply, tree = request.messages_list[0].metadata, request.message_object_trees[0]
        if reply.src_node_id != node:
            self._abort(context, "a node replies for itself alone")
        if tree.object_id != reply.message_id or not is_valid_sha256_hash(reply.message_id):
            self._abort(context, "a reply's id is that of its objects")
        if not (math.isfinite(reply.created_at) and math.isfinite(reply.ttl)):
            self._abort(context, "its times are no numbers")
        order = self._state.message_ins_store.get(reply.reply_to_message_id)
        if order is None:
            return PushMessagesResponse(results={reply.message_id: 0})  # discarded: nobody waits for its answer
        if order.metadata.dst_node_id != node or order.metadata.run_id != reply.run_id:
            self._abort(context, "it replies to an order that it was not sent")
        brings_vectors = order.metadata.message_type == TRAIN
        limit = self._post.limit if brings_vectors else ReplyLimit.of(0)
        response = self._take_reply(request, context, limit, brings_vectors)
        self._post.count(node, response.ByteSize(), request.ByteSize())
        return response

    def _take_reply(
        self, request: PushMessagesRequest, context: grpc.ServicerContext, limit: ReplyLimit, brings_vectors: bool
    ) -> PushMessagesResponse:
        """Stores the reply's header, if it is the first to its order and there is room; what happens is announced."""
        reply, tree = request.messages_list[0].metadata, request.message_object_trees[0]
        order = reply.reply_to_message_id

        def wanted() -> bool:
            return context.is_active() and order in self._state.message_ins_store

        if not self._post.claim(order, request.node.node_id, reply.message_id, limit.bytes):
            self._abort(context, "it has replied to this order already")
        reason = ""
        try:
            if brings_vectors and not self._post.await_room(order, wanted):
                self._post.dealt_with(order)
                return PushMessagesResponse(results={reply.message_id: 0})
            if sum(1 for _ in iterate_object_tree(tree)) > limit.objects:
                reason = "it has more objects than an update of this model"
            else:
                response = message_handler.push_messages(request, self._state)
                if self._state.message_ins_id_to_message_res_id.get(order) == reply.message_id:
                    self._post.announced(order, response.session_id, set(response.objects_to_push))
                    return response
                reason = "its header is malformed"
        except (
            Exception
        ) as error:  # Flower reads the header, which may be anything; the order's slot must be free again
            reason = f"its header is malformed ({type(error).__name__})"
        self._complain(context, f"its reply is not taken: {reason}")
        self._post.refuse(order, reason)
        if order not in self._state.message_ins_store:
            self._post.dealt_with(order)
        return PushMessagesResponse(results={reply.message_id: 0})

    def _abort(self, context: grpc.ServicerContext, reason: str) -> None:
        self._complain(context, reason)
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, reason)

    def PushObject(  # noqa: N802
        self, request: PushObjectRequest, context: grpc.ServicerContext
    ) -> PushObjectResponse:
        node, size = request.node.node_id, len(request.object_content)
        order = self._post.takes(node, request.session_id, request.object_id, size)
        response = PushObjectResponse(stored=False) if order is None else super().PushObject(request, context)
        self._post.count(node, response.ByteSize(), request.ByteSize())
        if order is not None and response.stored:
            self._post.uploaded(order, request.object_id, size)
        elif order is not None and self._post.lacks(order, request.object_id):
            self._complain(context, "it uploaded an object that is not what it announced")
            self._post.refuse(order, "an object of it is not what was announced")
        return response

    def PullObject(  # noqa: N802
        self, request: PullObjectRequest, context: grpc.ServicerContext
    ) -> PullObjectResponse:
        node = request.node.node_id
        if not self._post.may_fetch(node, request.object_id):
            return PullObjectResponse(object_found=False, object_available=False)
        if len(self._state.object_store.get(request.object_id) or b"") > SMALL:
            self._downloads.acquire()  # an answer takes memory until it is sent, and so for as long as its call lasts
            if not context.add_callback(self._downloads.release):
                self._downloads.release()
        response = super().PullObject(request, context)
        self._post.count(node, response.ByteSize(), request.ByteSize())
        return response

    def ConfirmMessageReceived(  # noqa: N802
        self, request: ConfirmMessageReceivedRequest, context: grpc.ServicerContext
    ) -> ConfirmMessageReceivedResponse:
        node, message_id = request.node.node_id, request.message_object_id
        message = self._state.message_ins_store.get(message_id)
        if message is None:
            return ConfirmMessageReceivedResponse()  # discarded meanwhile
        if message.metadata.dst_node_id != node:
            self._abort(context, "it confirms a message that it was not sent")
        response = super().ConfirmMessageReceived(request, context)
        self._post.fetched(node, message_id)
        return response


class Holds:
    """Calls that are held: so many in all, and a few of each node."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of_node: Counter[int] = Counter()
        self._all = 0

    def acquire(self, node: int) -> bool:
        """Whether one more of the node's calls may be held."""
        with self._lock:
            if self._of_node[node] >= HELD_FOR_ONE or self._all >= HOLDERS:
                return False
            self._of_node[node] += 1
            self._all += 1
            return True

    def release(self, node: int) -> None:
        with self._lock:
            self._of_node[node] -= 1
            self._all -= 1
            if not self._of_node[node]:
                del self._of_node[node]
