"""The Fleet API of this server: Flower's servicer with long polls, stricter checks and traffic counts.

- A poll is held until there is a message, so that messages leave at once and idle nodes cost nothing. (Flower answers
  at once and lets nodes poll every 3 s; stock SuperNodes work here too.)
- A heartbeat is held too, for a node that asks for it. When the call breaks off, the node has disconnected, which the
  server then knows at once instead of after a minute without heartbeats.
- A reply waits at its client while all slots for replies on the server are taken.
- A node may reply only to orders that were sent to it, once each, within the size limit of a reply. It may fetch and
  confirm only messages that were sent to it. Flower checks none of this.
- Bytes are counted per node.
- Every refusal is answered with a reason and logged.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from contextlib import suppress

import grpc

from fedopt.text import plain
from fedopt.wire import TRAIN
from server.flower_internals import (
    PUBLIC_KEY_HEADER,
    ActivateNodeRequest,
    ActivateNodeResponse,
    ApiErrorCode,
    ConfirmMessageReceivedRequest,
    ConfirmMessageReceivedResponse,
    FleetServicer,
    FlowerError,
    InMemoryLinkState,
    LinkStateFactory,
    NodeStatus,
    NoObjectInStoreError,
    PullMessagesRequest,
    PullMessagesResponse,
    PullObjectRequest,
    PullObjectResponse,
    PushMessagesRequest,
    PushMessagesResponse,
    PushObjectRequest,
    PushObjectResponse,
    RegisterNodeFleetRequest,
    RegisterNodeFleetResponse,
    SendNodeHeartbeatRequest,
    SendNodeHeartbeatResponse,
    get_metadata_bytes,
    is_valid_sha256_hash,
    iterate_object_tree,
    message_to_proto,
    now,
)
from server.limits import ReplyLimit
from server.mailbox import Mailbox
from server.refusal_log import RefusalLog

HOLD = 10.0
"""The most seconds that a call is held."""

MOST_HELD = 1500
"""Polls (and as many heartbeats) held at once. Each takes a thread; further calls are answered at once."""

SMALL, DOWNLOADS = 2**16, 12
"""Objects larger than SMALL bytes (the largest have 5 MB) are sent to at most DOWNLOADS clients at a time."""

HELD_PER_NODE = 4
"""Calls of each kind held for one node at once: a client that reconnects may have an old one open."""

MOST_NODES = 4096
"""The most registered nodes on a server without keys; when there are more, offline nodes are forgotten."""

WATCH = "fedopt-watch"
"""The gRPC metadata key of a heartbeat that should be held."""


class LongPollServicer(FleetServicer):
    """Flower's servicer with the changes that the module's docstring lists."""

    def __init__(
        self, states: LinkStateFactory, *, authenticates: bool, mailbox: Mailbox, refusals: RefusalLog
    ) -> None:
        super().__init__(states, states.objectstore_factory, authenticates)
        self._mailbox, self._refusals = mailbox, refusals
        self._downloads = threading.Semaphore(DOWNLOADS)
        self._watching: dict[int, object] = {}
        self._held_polls, self._held_heartbeats = HeldCalls(), HeldCalls()

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
            self._log_refusal(context, "it came without a registered key")
        elif len(self._state.nodes) >= MOST_NODES and not self._forget_absent_nodes():
            raise self._refusal(context, f"{MOST_NODES} nodes are connected already")
        return super().RegisterNode(request, context)

    def _forget_absent_nodes(self) -> int:
        """Forgets offline nodes and returns their number. A node that reconnects registers again."""
        state = self._state
        with state.lock:
            offline = [node for node in state.nodes.values() if node.status != NodeStatus.ONLINE]
            for node in offline:
                del state.nodes[node.node_id]
                state.node_public_key_to_node_id.pop(node.public_key, None)
                state.owner_to_node_ids.get(node.owner_aid, set()).discard(node.node_id)
        return len(offline)

    def ActivateNode(  # noqa: N802
        self, request: ActivateNodeRequest, context: grpc.ServicerContext
    ) -> ActivateNodeResponse:
        self._check_proof(request.public_key, context)
        node = self._state.get_node_id_by_public_key(request.public_key)
        if node is None:
            raise self._refusal(context, "its key is not registered here")
        if node in self._watching:
            raise self._refusal(context, "a client with its key is connected already")
        self._state.deactivate_node(node)  # ends an older connection of the same node
        answer = super().ActivateNode(request, context)
        self._mailbox.node_connected(node)
        return answer

    def _check_proof(self, key: bytes, context: grpc.ServicerContext) -> None:
        """Raises unless the call is signed with the key that the node claims."""
        if get_metadata_bytes(context.invocation_metadata(), PUBLIC_KEY_HEADER) != key:
            raise self._refusal(context, "it is signed with another key than the one it claims")

    def _log_refusal(self, context: grpc.ServicerContext, reason: str) -> None:
        self._refusals.add(reason, f"refused a client from {plain(context.peer())}: {reason}")

    def _refusal(self, context: grpc.ServicerContext, reason: str) -> FlowerError:
        self._log_refusal(context, reason)
        return FlowerError(ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED, reason, public_details=reason)

    def SendNodeHeartbeat(  # noqa: N802
        self, request: SendNodeHeartbeatRequest, context: grpc.ServicerContext
    ) -> SendNodeHeartbeatResponse:
        response = super().SendNodeHeartbeat(request, context)
        if response.success and WATCH in dict(context.invocation_metadata()):
            self._watch(request.node.node_id, context)
        return response

    def _watch(self, node: int, context: grpc.ServicerContext) -> None:
        """HeldCalls the call. Should it break off, its node has disconnected."""
        held, over = object(), threading.Event()
        self._watching[node] = held

        def ended() -> None:
            over.set()
            if self._watching.get(node) is held:  # neither answered nor replaced by a newer call
                del self._watching[node]
                self._state.deactivate_node(node)
                self._mailbox.wake_poll(node)
                self._mailbox.notify()

        if not context.add_callback(ended):
            ended()
        elif self._held_heartbeats.acquire(node):
            over.wait(HOLD)
            self._held_heartbeats.release(node)
        if context.is_active() and self._watching.get(node) is held:
            del self._watching[node]

    def PullMessages(  # noqa: N802
        self, request: PullMessagesRequest, context: grpc.ServicerContext
    ) -> PullMessagesResponse:
        node, until = request.node.node_id, time.monotonic() + HOLD
        context.add_callback(lambda: self._mailbox.wake_poll(node))  # so that a poll that broke off takes no message
        response = PullMessagesResponse()
        while context.is_active():
            response = self._next_message(node)
            if response.messages_list or time.monotonic() >= until:
                break
            if not self._held_polls.acquire(node):
                break
            try:
                self._mailbox.wait_for_mail(node, until, context.is_active)
            finally:
                self._held_polls.release(node)
        self._mailbox.count(node, response.ByteSize(), request.ByteSize())
        return response

    def _next_message(self, node: int) -> PullMessagesResponse:
        """The node's next message, from its mailbox. (Flower searches all messages of all nodes.)"""
        while (message_id := self._mailbox.next_message(node)) is not None:
            message = self._state.message_ins_store.get(message_id)
            with suppress(NoObjectInStoreError):  # discarded in the meantime
                if message is not None:
                    tree = self._state.object_store.get_object_tree(message_id)
                    message.metadata.delivered_at = now().isoformat()
                    objects = frozenset(item.object_id for item in iterate_object_tree(tree))
                    self._mailbox.message_offered(node, message_id, objects)
                    return PullMessagesResponse(messages_list=[message_to_proto(message)], message_object_trees=[tree])
        return PullMessagesResponse()

    def PushMessages(  # noqa: N802
        self, request: PushMessagesRequest, context: grpc.ServicerContext
    ) -> PushMessagesResponse:
        node = request.node.node_id
        if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
            self._abort(context, "it must send one reply at a time, with its objects")
        reply, tree = request.messages_list[0].metadata, request.message_object_trees[0]
        if reply.src_node_id != node:
            self._abort(context, "it replies in the name of another node")
        if tree.object_id != reply.message_id or not is_valid_sha256_hash(reply.message_id):
            self._abort(context, "its reply's id is not that of the reply's objects")
        if not (math.isfinite(reply.created_at) and math.isfinite(reply.ttl)):
            self._abort(context, "its creation time or time to live is not a finite number")
        order = self._state.message_ins_store.get(reply.reply_to_message_id)
        if order is None:
            return PushMessagesResponse(results={reply.message_id: 0})  # discarded: no reply is wanted
        if order.metadata.dst_node_id != node or order.metadata.run_id != reply.run_id:
            self._abort(context, "it replies to an order that it was not sent")
        brings_vectors = order.metadata.message_type == TRAIN
        limit = self._mailbox.limit if brings_vectors else ReplyLimit.of(0)
        response = self._take_reply(request, context, limit, brings_vectors)
        self._mailbox.count(node, response.ByteSize(), request.ByteSize())
        return response

    def _take_reply(
        self, request: PushMessagesRequest, context: grpc.ServicerContext, limit: ReplyLimit, brings_vectors: bool
    ) -> PushMessagesResponse:
        """Stores the reply's header if it is the first to its order, once there is a slot, and updates the mailbox."""
        reply, tree = request.messages_list[0].metadata, request.message_object_trees[0]
        order = reply.reply_to_message_id

        def wanted() -> bool:
            return context.is_active() and order in self._state.message_ins_store

        if not self._mailbox.claim(order, request.node.node_id, reply.message_id, limit.bytes):
            self._abort(context, "it has replied to this order already")
        reason = ""
        try:
            if brings_vectors and not self._mailbox.acquire_slot(order, wanted):
                self._mailbox.forget(order)
                return PushMessagesResponse(results={reply.message_id: 0})
            if sum(1 for _ in iterate_object_tree(tree)) > limit.objects:
                reason = "it has more objects than an update of this model"
            else:
                response = super().PushMessages(request, context)
                if self._state.message_ins_id_to_message_res_id.get(order) == reply.message_id:
                    self._mailbox.reply_announced(order, response.session_id, set(response.objects_to_push))
                    return response
                reason = "its header is malformed"
        except Exception as error:  # an untrusted header may raise anything; the order's slot must be released
            reason = f"its header is malformed ({type(error).__name__})"
        self._log_refusal(context, f"its reply is refused: {reason}")
        self._mailbox.refuse(order, reason)
        if order not in self._state.message_ins_store:
            self._mailbox.forget(order)
        return PushMessagesResponse(results={reply.message_id: 0})

    def _abort(self, context: grpc.ServicerContext, reason: str) -> None:
        self._log_refusal(context, reason)
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, reason)

    def PushObject(  # noqa: N802
        self, request: PushObjectRequest, context: grpc.ServicerContext
    ) -> PushObjectResponse:
        node, size = request.node.node_id, len(request.object_content)
        order = self._mailbox.order_of_object(node, request.session_id, request.object_id, size)
        response = PushObjectResponse(stored=False) if order is None else super().PushObject(request, context)
        self._mailbox.count(node, response.ByteSize(), request.ByteSize())
        if order is not None and response.stored:
            self._mailbox.object_uploaded(order, request.object_id, size)
        elif order is not None and self._mailbox.misses_object(order, request.object_id):
            self._log_refusal(context, "it uploaded an object that is not what it announced")
            self._mailbox.refuse(order, "an object of it is not what was announced")
        return response

    def PullObject(  # noqa: N802
        self, request: PullObjectRequest, context: grpc.ServicerContext
    ) -> PullObjectResponse:
        node = request.node.node_id
        if not self._mailbox.may_fetch(node, request.object_id):
            return PullObjectResponse(object_found=False, object_available=False)
        if len(self._state.object_store.get(request.object_id) or b"") > SMALL:
            self._downloads.acquire()  # a response takes memory until its call has ended
            if not context.add_callback(self._downloads.release):
                self._downloads.release()
        response = super().PullObject(request, context)
        self._mailbox.count(node, response.ByteSize(), request.ByteSize())
        return response

    def ConfirmMessageReceived(  # noqa: N802
        self, request: ConfirmMessageReceivedRequest, context: grpc.ServicerContext
    ) -> ConfirmMessageReceivedResponse:
        node, message_id = request.node.node_id, request.message_object_id
        message = self._state.message_ins_store.get(message_id)
        if message is None:
            return ConfirmMessageReceivedResponse()  # discarded in the meantime
        if message.metadata.dst_node_id != node:
            self._abort(context, "it confirms a message that it was not sent")
        response = super().ConfirmMessageReceived(request, context)
        self._mailbox.message_fetched(node, message_id)
        return response


class HeldCalls:
    """Limits how many calls are held, in total and per node."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of_node: Counter[int] = Counter()
        self._all = 0

    def acquire(self, node: int) -> bool:
        """Whether one more of the node's calls may be held."""
        with self._lock:
            if self._of_node[node] >= HELD_PER_NODE or self._all >= MOST_HELD:
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
