"""A node's connection to a SuperLink: the calls of Flower's Fleet API (gRPC), and what their failures mean.

Flower's own SuperNode takes a new process for every message; this is the part of it that talks, for a client
that answers in its own process.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

import grpc
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.client.grpc_rere_client.node_auth_client_interceptor import NodeAuthClientInterceptor
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
)
from flwr.proto.fleet_pb2_grpc import FleetStub
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.interceptors import RuntimeVersionClientInterceptor
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes

from fedopt.errors import FedoptError
from fedopt.text import plain

HEARTBEAT = 30.0
"""Seconds within which a SuperLink hears of this node; it gives up on one after two of them."""

HELD = 40.0
"""Seconds to wait for an answer to a poll, which a SuperLink may hold back until there is a message."""

WATCHED = (("fedopt-watch", "1"),)
"""Asks a fedopt server to hold a heartbeat; others do not mind."""

ANSWER = 60.0
"""Seconds to wait for an answer to any other call; an object is at most 5 MB."""

TURN = 3600.0
"""Seconds to wait until a server has room for this node's answer."""

IN_FLIGHT = 8
"""Objects on the way at once: enough to hide the way's latency."""

AGREE = 15.0
"""Seconds within which a server must have given up an older connection of this node."""

UNAVAILABLE_AGAIN = 0.02
"""Seconds between looks for an object that is announced and not yet there."""

HELLO_BYTES = 2**24
"""A message that is not about a model of known size has fewer."""

MOST_OBJECTS = 1000
"""Objects of a message, beside one for each MiB that it may have."""

OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", 2**26),  # an object has 5 MB at most
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 2000),
]


class Lost(FedoptError):
    """The server does not answer. It may come back."""


class Forgotten(FedoptError):
    """The server answers, and does not know this node: it has been started anew."""


class TurnedAway(FedoptError):
    """The server, or this client, refuses to have to do with the other."""


class Withdrawn(FedoptError):
    """The message is no longer of interest to the server."""


@dataclass(frozen=True)
class Credentials:
    """How a node proves itself and whom it trusts."""

    ca: bytes | None
    """The certificate authority to trust, in PEM; None for plaintext."""
    key: ec.EllipticCurvePrivateKey | None = field(repr=False)
    """The key that the server knows this node by; None where it takes anyone."""


class Connection:
    """One node's calls. Safe to use from several threads."""

    def __init__(self, address: str, credentials: Credentials, channel: grpc.Channel | None = None) -> None:
        """`channel` is one that several nodes of a process share; without it, one of this node's own is made."""
        self._registers = credentials.key is None
        private = credentials.key or generate_key_pairs()[0]
        self._public = public_key_to_bytes(private.public_key())
        self._channel = grpc.intercept_channel(
            channel or open_channel(address, credentials),
            RuntimeVersionClientInterceptor(component_name="SuperNode"),
            NodeAuthClientInterceptor(private, private.public_key()),
        )
        self._stub: Any = FleetStub(self._channel)
        self.most_bytes = HELLO_BYTES
        """What a message may amount to."""
        self._node = Node()
        self._refused_since = 0.0
        self._heart: threading.Thread | None = None
        self._closing = threading.Event()

    @property
    def node_id(self) -> int:
        return self._node.node_id

    def join(self) -> None:
        """Registers where the server takes anyone, and goes on line."""
        if self._registers:
            with suppress(_AlreadyKnown):  # to the server, from before the connection was lost
                _result(self._stub.RegisterNode.future(RegisterNodeFleetRequest(public_key=self._public), ANSWER))
        request = ActivateNodeRequest(public_key=self._public, heartbeat_interval=HEARTBEAT)
        try:
            self._node = Node(node_id=_result(self._stub.ActivateNode.future(request, ANSWER)).node_id)
        except _NotActivated as error:
            # A server may need a moment to see that this client's old connection is gone.
            self._refused_since = self._refused_since or time.monotonic()
            if time.monotonic() - self._refused_since < AGREE:
                raise Lost(str(error)) from error
            raise TurnedAway(f"the server refuses this client: {error}") from error
        self._refused_since = 0.0
        if self._heart is None:
            self._heart = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
            self._heart.start()

    def receive(self) -> Message | None:
        """The next message, or None after a while without one."""
        response = _result(self._stub.PullMessages.future(PullMessagesRequest(node=self._node), HELD))
        if not response.messages_list:
            return None
        try:
            return self._fetch(response)
        except (FedoptError, grpc.RpcError):
            raise
        except Exception as error:  # whatever a stranger's bytes raise in Flower's reader
            raise TurnedAway(f"the server sends what is no message ({type(error).__name__})") from error

    def _fetch(self, response: Any) -> Message:
        metadata = response.messages_list[0].metadata
        tree = response.message_object_trees[0]
        ids = list(dict.fromkeys(node.object_id for node in iterate_object_tree(tree)))
        if len(ids) > MOST_OBJECTS + self.most_bytes // 2**20:
            raise TurnedAway(f"the server sends a message of {len(ids)} objects, more than belong to this model")
        contents: dict[str, bytes] = {}
        left = self.most_bytes
        for object_id, content in zip(ids, self._pull(metadata.run_id, ids), strict=True):
            contents[object_id] = content
            left -= len(content)
            if left < 0:
                raise TurnedAway(f"the server sends more than {self.most_bytes / 2**20:.0f} MiB, what belongs here")
        confirmed = ConfirmMessageReceivedRequest(
            node=self._node, run_id=metadata.run_id, message_object_id=metadata.message_id
        )
        _result(self._stub.ConfirmMessageReceived.future(confirmed, ANSWER))
        message = cast(Message, inflate_object_from_contents(metadata.message_id, contents))
        message.metadata.__dict__["_message_id"] = metadata.message_id
        return message

    def send(self, reply: Message, seconds: float) -> None:
        """Sends a reply; `seconds` is how long it took to make."""
        with no_object_id_recompute():
            reply.metadata.__dict__["_message_id"] = reply.object_id
            objects = get_all_nested_objects(reply)
            request = PushMessagesRequest(
                node=self._node,
                messages_list=[message_to_proto(remove_content_from_message(reply))],
                message_object_trees=[get_object_tree(reply)],
                clientapp_runtime_list=[seconds],
            )
            response = _result(self._stub.PushMessages.future(request, TURN))
            wanted = set(response.objects_to_push)
            pushes = (
                self._stub.PushObject.future(
                    PushObjectRequest(
                        node=self._node,
                        run_id=reply.metadata.run_id,
                        object_id=object_id,
                        object_content=item.deflate(),
                        session_id=response.session_id,
                    ),
                    ANSWER,
                )
                for object_id, item in objects.items()
                if object_id in wanted
            )
            if not all(answer.stored for answer in _windowed(pushes)):
                raise Withdrawn("the server does not take this reply any more")

    def leave(self) -> None:
        """Goes off line, so that the server need not find out for itself."""
        if self._node.node_id:
            _result(self._stub.DeactivateNode.future(DeactivateNodeRequest(node_id=self._node.node_id), 2.0))

    def close(self) -> None:
        self._closing.set()
        self._channel.close()

    def _beat(self) -> None:
        """Keeps the server informed. One that holds heartbeats back sees at once when this process is gone."""
        while not self._closing.is_set():
            request = SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=HEARTBEAT)
            asked = time.monotonic()
            with suppress(FedoptError):  # whatever is wrong, the next poll meets it too
                _result(self._stub.SendNodeHeartbeat.future(request, HELD, metadata=WATCHED))
            if time.monotonic() - asked < 1.0:
                self._closing.wait(HEARTBEAT / 4)

    def _pull(self, run_id: int, ids: list[str]) -> Iterator[bytes]:
        def call(object_id: str) -> Any:
            request = PullObjectRequest(node=self._node, run_id=run_id, object_id=object_id)
            return self._stub.PullObject.future(request, ANSWER)

        for object_id, answer in zip(ids, _windowed(call(object_id) for object_id in ids), strict=True):
            while answer.object_found and not answer.object_available:  # announced first, then uploaded
                if self._closing.wait(UNAVAILABLE_AGAIN):
                    raise Lost("the connection is being closed")
                answer = _result(call(object_id))
            if not answer.object_found:
                raise Withdrawn("the server has taken this message back")
            yield answer.object_content


def open_channel(address: str, credentials: Credentials) -> grpc.Channel:
    """A channel that tries again soon when its server is gone."""
    if credentials.ca is None:
        return grpc.insecure_channel(address, OPTIONS)
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(credentials.ca), OPTIONS)


def _windowed(calls: Iterable[Any]) -> Iterator[Any]:
    """Results in order, with at most IN_FLIGHT calls on the way."""
    waiting: deque[Any] = deque()
    for call in calls:
        waiting.append(call)
        if len(waiting) == IN_FLIGHT:
            yield _result(waiting.popleft())
    while waiting:
        yield _result(waiting.popleft())


class _NotActivated(FedoptError):
    """The server does not let this node on line."""


class _AlreadyKnown(FedoptError):
    """The server has this node's key already."""


def _result(call: Any) -> Any:
    """The answer to a call, or what its failure means."""
    try:
        return call.result()
    except grpc.RpcError as error:
        raise _meaning(error) from error
    except grpc.FutureCancelledError as error:
        raise Lost("the connection is being closed") from error
    except ValueError as error:  # grpc's way of saying that the channel has been closed meanwhile
        raise Lost("the connection is being closed") from error


def _meaning(error: Any) -> FedoptError:
    code, details = error.code(), error.details() or ""
    shown = plain(details)
    told = FlowerError.from_json(details)
    if told is not None:
        if told.code == ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE:
            return _AlreadyKnown(told.message)
        if told.code == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED:
            return _NotActivated(plain(told.public_details or "its key is unknown, or on line already"))
        if told.code == ApiErrorCode.FLEET_SUPERNODE_REGISTRATION_DISABLED:
            return TurnedAway("the server takes only clients whose keys it knows; give this client's with --key")
        if told.code == ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED:
            return Withdrawn("the run this message belongs to is over")
        return TurnedAway(f"the server refuses: {plain(told.message)}")
    if code == grpc.StatusCode.UNAUTHENTICATED:
        if "timestamp" in details:
            return TurnedAway("this machine's clock and the server's differ by minutes; set them right")
        return Forgotten("the server does not know this node any more")
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED):
        return Lost(shown.rpartition(": ")[2].rstrip(".").lower() or code.name.lower())
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return TurnedAway("what answers there is no Flower SuperLink")
    return Lost(f"{code.name}: {shown}")
