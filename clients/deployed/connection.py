"""A node's connection to a SuperLink: the calls of Flower's Fleet API (gRPC), and what their failures mean.

Flower's own SuperNode starts a new process for every message. This is its communication part, for a client that
answers in its own process.
"""

from __future__ import annotations

import logging
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

from clients.deployed.flower_internals import (
    ActivateNodeRequest,
    ApiErrorCode,
    ConfirmMessageReceivedRequest,
    DeactivateNodeRequest,
    FleetStub,
    FlowerError,
    Node,
    PullMessagesRequest,
    PullObjectRequest,
    PushMessagesRequest,
    PushObjectRequest,
    RegisterNodeFleetRequest,
    RuntimeVersionClientInterceptor,
    SendNodeHeartbeatRequest,
    generate_key_pairs,
    get_all_nested_objects,
    get_object_tree,
    inflate_object_from_contents,
    iterate_object_tree,
    message_to_proto,
    no_object_id_recompute,
    public_key_to_bytes,
    remove_content_from_message,
)
from clients.deployed.signing import SigningInterceptor
from fedopt.errors import FedoptError
from fedopt.text import plain

HEARTBEAT = 30.0
"""The interval in seconds that the SuperLink expects. It considers a node offline after two missed heartbeats."""

POLL_TIMEOUT = 40.0
"""Seconds to wait for the answer to a poll, which a fedopt server holds until there is a message."""

WATCH = (("fedopt-watch", "1"),)
"""gRPC metadata that asks a fedopt server to hold a heartbeat; other servers ignore it."""

CALL_TIMEOUT = 60.0
"""Seconds to wait for the answer to any other call; an object has at most 5 MB."""

PUSH_TIMEOUT = 3600.0
"""Seconds to wait until a server has a free slot for this node's reply."""

IN_FLIGHT = 8
"""Concurrent transfers of objects: enough to hide the network's latency."""

RECONNECT_GRACE = 15.0
"""Seconds within which a server must notice that an older connection of this node has ended."""

OBJECT_POLL = 0.02
"""Seconds between polls for an object that is announced but not yet available."""

HELLO_BYTES = 2**24
"""The size limit of a message before the model's size is known."""

MOST_OBJECTS = 1000
"""The most objects of a message, plus one for each MiB of its size limit."""

OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", 2**26),  # an object has 5 MB at most
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 2000),
]


ADVICE = "The gRPC Fleet API is deprecated"
"""How a warning of Flower begins that each heartbeat brings. It advises to use another protocol, which a user of fedopt
cannot choose."""


def is_no_advice(record: logging.LogRecord) -> bool:
    """A filter of Flower's logger without this warning."""
    return not str(record.msg).startswith(ADVICE)


class ConnectionLost(FedoptError):
    """The server does not answer. It may become available again."""


class UnknownNode(FedoptError):
    """The server answers but does not know this node: it was restarted."""


class Rejected(FedoptError):
    """The server refuses this client, or this client refuses the server."""


class MessageWithdrawn(FedoptError):
    """The server no longer wants this message or its reply."""


@dataclass(frozen=True)
class Credentials:
    """The node's private key and the certificate authority that it trusts."""

    ca: bytes | None
    """The certificate authority in PEM; None for plaintext."""
    key: ec.EllipticCurvePrivateKey | None = field(repr=False)
    """The key that identifies this node to the server; None if the server accepts any node."""


class Connection:
    """One node's calls. Thread-safe."""

    def __init__(self, address: str, credentials: Credentials, channel: grpc.Channel | None = None) -> None:
        """`channel` may be shared by several nodes of a process; by default the node opens its own."""
        logging.getLogger("flwr").addFilter(is_no_advice)
        self._registers = credentials.key is None
        private = credentials.key or generate_key_pairs()[0]
        self._public = public_key_to_bytes(private.public_key())
        self._channel = grpc.intercept_channel(
            channel or open_channel(address, credentials),
            RuntimeVersionClientInterceptor(component_name="SuperNode"),
            SigningInterceptor(private),
        )
        self._stub: Any = FleetStub(self._channel)
        self.most_bytes = HELLO_BYTES
        """The size limit of a message."""
        self._node = Node()
        self._refused_since = 0.0
        self._heart: threading.Thread | None = None
        self._closing = threading.Event()

    @property
    def node_id(self) -> int:
        return self._node.node_id

    def join(self) -> None:
        """Registers if the server accepts any node, and goes online."""
        if self._registers:
            with suppress(_AlreadyKnown):  # registered before the connection was lost
                _result(self._stub.RegisterNode.future(RegisterNodeFleetRequest(public_key=self._public), CALL_TIMEOUT))
        request = ActivateNodeRequest(public_key=self._public, heartbeat_interval=HEARTBEAT)
        try:
            self._node = Node(node_id=_result(self._stub.ActivateNode.future(request, CALL_TIMEOUT)).node_id)
        except _NotActivated as error:
            # A server may need a moment to notice that this client's old connection has ended.
            self._refused_since = self._refused_since or time.monotonic()
            if time.monotonic() - self._refused_since < RECONNECT_GRACE:
                raise ConnectionLost(str(error)) from error
            raise Rejected(f"the server refuses this client: {error}") from error
        self._refused_since = 0.0
        if self._heart is None:
            self._heart = threading.Thread(target=self._send_heartbeats, name="heartbeat", daemon=True)
            self._heart.start()

    def receive(self) -> Message | None:
        """The next message, or None if the poll times out without one."""
        response = _result(self._stub.PullMessages.future(PullMessagesRequest(node=self._node), POLL_TIMEOUT))
        if not response.messages_list:
            return None
        try:
            return self._fetch(response)
        except (FedoptError, grpc.RpcError):
            raise
        except Exception as error:  # untrusted bytes may raise anything in Flower's reader
            raise Rejected(f"the server sends a malformed message ({type(error).__name__})") from error

    def _fetch(self, response: Any) -> Message:
        metadata = response.messages_list[0].metadata
        tree = response.message_object_trees[0]
        ids = list(dict.fromkeys(node.object_id for node in iterate_object_tree(tree)))
        if len(ids) > MOST_OBJECTS + self.most_bytes // 2**20:
            raise Rejected(f"the server sends a message of {len(ids)} objects, more than this model needs")
        contents: dict[str, bytes] = {}
        left = self.most_bytes
        for object_id, content in zip(ids, self._pull(metadata.run_id, ids), strict=True):
            contents[object_id] = content
            left -= len(content)
            if left < 0:
                raise Rejected(
                    f"the server sends more than {self.most_bytes / 2**20:.0f} MiB, the limit for this model"
                )
        confirmed = ConfirmMessageReceivedRequest(
            node=self._node, run_id=metadata.run_id, message_object_id=metadata.message_id
        )
        _result(self._stub.ConfirmMessageReceived.future(confirmed, CALL_TIMEOUT))
        message = cast(Message, inflate_object_from_contents(metadata.message_id, contents))
        message.metadata.__dict__["_message_id"] = metadata.message_id
        return message

    def send(self, reply: Message, seconds: float) -> None:
        """Sends a reply; `seconds` is how long it took to compute."""
        with no_object_id_recompute():
            reply.metadata.__dict__["_message_id"] = reply.object_id
            objects = get_all_nested_objects(reply)
            request = PushMessagesRequest(
                node=self._node,
                messages_list=[message_to_proto(remove_content_from_message(reply))],
                message_object_trees=[get_object_tree(reply)],
                clientapp_runtime_list=[seconds],
            )
            response = _result(self._stub.PushMessages.future(request, PUSH_TIMEOUT))
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
                    CALL_TIMEOUT,
                )
                for object_id, item in objects.items()
                if object_id in wanted
            )
            if not all(answer.stored for answer in _windowed(pushes)):
                raise MessageWithdrawn("the server no longer wants this reply")

    def leave(self) -> None:
        """Goes offline, so that the server knows at once."""
        if self._node.node_id:
            _result(self._stub.DeactivateNode.future(DeactivateNodeRequest(node_id=self._node.node_id), 2.0))

    def close(self) -> None:
        self._closing.set()
        self._channel.close()

    def _send_heartbeats(self) -> None:
        """Sends heartbeats until closed. A server that holds them notices at once when this process ends."""
        while not self._closing.is_set():
            request = SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=HEARTBEAT)
            asked = time.monotonic()
            with suppress(FedoptError):  # the next poll fails for the same reason and reports it
                _result(self._stub.SendNodeHeartbeat.future(request, POLL_TIMEOUT, metadata=WATCH))
            if time.monotonic() - asked < 1.0:
                self._closing.wait(HEARTBEAT / 4)

    def _pull(self, run_id: int, ids: list[str]) -> Iterator[bytes]:
        def call(object_id: str) -> Any:
            request = PullObjectRequest(node=self._node, run_id=run_id, object_id=object_id)
            return self._stub.PullObject.future(request, CALL_TIMEOUT)

        for object_id, answer in zip(ids, _windowed(call(object_id) for object_id in ids), strict=True):
            while answer.object_found and not answer.object_available:  # announced first, then uploaded
                if self._closing.wait(OBJECT_POLL):
                    raise ConnectionLost("the connection is being closed")
                answer = _result(call(object_id))
            if not answer.object_found:
                raise MessageWithdrawn("the server has withdrawn this message")
            yield answer.object_content


def open_channel(address: str, credentials: Credentials) -> grpc.Channel:
    """A channel that reconnects quickly when its server is unavailable."""
    if credentials.ca is None:
        return grpc.insecure_channel(address, OPTIONS)
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(credentials.ca), OPTIONS)


def _windowed(calls: Iterable[Any]) -> Iterator[Any]:
    """Results in order, with at most IN_FLIGHT calls at once."""
    waiting: deque[Any] = deque()
    for call in calls:
        waiting.append(call)
        if len(waiting) == IN_FLIGHT:
            yield _result(waiting.popleft())
    while waiting:
        yield _result(waiting.popleft())


class _NotActivated(FedoptError):
    """The server does not activate this node."""


class _AlreadyKnown(FedoptError):
    """The server knows this node's key already."""


def _result(call: Any) -> Any:
    """The result of a call; raises an error that says what its failure means."""
    try:
        return call.result()
    except grpc.RpcError as error:
        raise _meaning(error) from error
    except grpc.FutureCancelledError as error:
        raise ConnectionLost("the connection is being closed") from error
    except ValueError as error:  # gRPC raises ValueError if the channel was closed
        raise ConnectionLost("the connection is being closed") from error


def _meaning(error: Any) -> FedoptError:
    code, details = error.code(), error.details() or ""
    shown = plain(details)
    flower = FlowerError.from_json(details)
    if flower is not None:
        if flower.code == ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE:
            return _AlreadyKnown(flower.message)
        if flower.code == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED:
            return _NotActivated(plain(flower.public_details or "its key is unknown, or a node with its key is online"))
        if flower.code == ApiErrorCode.FLEET_SUPERNODE_REGISTRATION_DISABLED:
            return Rejected("the server accepts only clients whose keys it knows; give this client's key with --key")
        if flower.code == ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED:
            return MessageWithdrawn("the run this message belongs to is over")
        return Rejected(f"the server refuses: {plain(flower.message)}")
    if code == grpc.StatusCode.UNAUTHENTICATED:
        if "timestamp" in details:
            return Rejected("this machine's clock and the server's differ by minutes; synchronize them")
        return UnknownNode("the server does not know this node")
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED):
        return ConnectionLost(shown.rpartition(": ")[2].rstrip(".").lower() or code.name.lower())
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return Rejected("the server at this address is not a Flower SuperLink that speaks gRPC")
    return ConnectionLost(f"{code.name}: {shown}")
