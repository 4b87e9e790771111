"""What a hostile node may do over gRPC, beside sending a malformed update. Each attack happens in a round of its own.

An attack gets the order that its node was sent, and does what it likes; where it leaves the order unanswered, the
attacker says at last that it failed, so that the round need not wait for the deadline.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import grpc
from flwr.app import Error, Message
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
    UnregisterNodeFleetRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree, PullObjectRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_id, get_object_tree

from clients.deployed.connection import (
    Connection,
    ConnectionLost,
    Credentials,
    MessageWithdrawn,
    UnknownNode,
    open_channel,
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


def a_duplicate_push(attacker: Attacker, order: Message) -> None:
    """The same reply again, while it comes and when it is whole."""
    reply = attacker.reply(order)
    reply.content.config_records["update"]["loss"] = math.inf
    reply = Message(reply.content, reply_to=order)
    reply.metadata.__dict__["_message_id"] = reply.object_id
    for _ in range(3):
        attacker.call("PushMessages", attacker.header(reply))
    found = attacker.call("PushMessages", attacker.header(reply))
    for object_id, item in get_all_nested_objects(reply).items():
        for _ in range(2):
            attacker.upload(order, found.session_id if found else "", object_id, item.deflate())
    for _ in range(3):
        attacker.call("PushMessages", attacker.header(reply))


def two_replies_to_one_order(attacker: Attacker, order: Message) -> None:
    for _ in range(5):
        attacker.call("PushMessages", attacker.header(attacker.reply(order)), 2.0)


def an_unknown_run(attacker: Attacker, order: Message) -> None:
    """It once took a slot for good with each call."""
    for run in range(1, 9):
        attacker.call("PushMessages", attacker.header(attacker.reply(order), run_id=run), 2.0)


def an_unknown_order(attacker: Attacker, order: Message) -> None:
    for number in range(8):
        attacker.call("PushMessages", attacker.header(attacker.reply(order), reply_to_message_id=f"{number:064x}"), 2.0)


def in_anothers_name(attacker: Attacker, order: Message) -> None:
    attacker.call("PushMessages", attacker.header(attacker.reply(order), src_node_id=attacker.node_id ^ 1))


def anothers_order(attacker: Attacker, order: Message) -> None:
    """A second node of the attacker's replies to the order of the first, and fetches and confirms it."""
    other = Attacker(attacker.address)
    other.join()
    reply = attacker.reply(order)
    other.call("PushMessages", other.header(reply, src_node_id=other.node_id))
    for object_id in get_all_nested_objects(order):
        request = PullObjectRequest(node=other._node, run_id=order.metadata.run_id, object_id=object_id)
        found = other.call("PullObject", request)
        assert found is None or not found.object_found
    confirmed = ConfirmMessageReceivedRequest(
        node=other._node, run_id=order.metadata.run_id, message_object_id=order.metadata.message_id
    )
    other.call("ConfirmMessageReceived", confirmed)
    other.leave()
    other.close()


def an_older_reply(attacker: Attacker, order: Message) -> None:
    """The reply to an earlier order once more, and its content as that to this one."""
    for reply in attacker.older[-3:]:
        attacker.call("PushMessages", attacker.header(reply))
        with suppress(FedoptError):
            attacker.send(Message(reply.content, reply_to=order), 0.0)


def an_upload_that_never_comes(attacker: Attacker, order: Message) -> None:
    attacker.call("PushMessages", attacker.header(attacker.reply(order)))


def a_large_object(attacker: Attacker, order: Message) -> None:
    found = attacker.call("PushMessages", attacker.header(attacker.reply(order)))
    if found is not None:
        for object_id in found.objects_to_push:
            attacker.upload(order, found.session_id, object_id, b"\x00" * 100_000_000)


def large_messages(attacker: Attacker, order: Message) -> None:
    for method in METHODS:
        attacker.raw(method, b"\x0a" + b"\x00" * 50_000_000)


def large_messages_of_nobody(attacker: Attacker, order: Message) -> None:
    """Without any proof of who sends them, all at once."""
    channel = open_channel(attacker.address, Credentials(None, None))

    def one(number: int) -> None:
        with suppress(grpc.RpcError):
            method = METHODS[number % len(METHODS)]
            channel.unary_unary(f"/flwr.proto.Fleet/{method}")(b"\x00" * 50_000_000, timeout=QUICK)

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(one, range(10)))
    channel.close()


def compressed_messages(attacker: Attacker, order: Message) -> None:
    for method in METHODS:
        attacker.raw(method, b"\x00" * 50_000_000, compression=grpc.Compression.Gzip)


def many_objects(attacker: Attacker, order: Message) -> None:
    reply = attacker.reply(order)
    for count in (500, 5000):
        children = [ObjectTree(object_id=f"{number:064x}") for number in range(count)]
        attacker.call("PushMessages", attacker.header(reply, ObjectTree(object_id=reply.object_id, children=children)))


def a_reply_of_many_bytes(attacker: Attacker, order: Message) -> None:
    """Objects that are each small enough, and too large together."""
    reply = attacker.reply(order)
    bodies = [b"ArrayChunk  60000\x00" + bytes([number]) * 60_000 for number in range(12)]
    children = [ObjectTree(object_id=get_object_id(body)) for body in bodies]
    found = attacker.call(
        "PushMessages", attacker.header(reply, ObjectTree(object_id=reply.object_id, children=children))
    )
    for body in bodies:
        if found is not None:
            attacker.upload(order, found.session_id, get_object_id(body), body)


def other_objects(attacker: Attacker, order: Message) -> None:
    found = attacker.call("PushMessages", attacker.header(attacker.reply(order)))
    if found is not None:
        for object_id in found.objects_to_push:
            attacker.upload(order, found.session_id, object_id, b"something else")


def objects_of_no_reply(attacker: Attacker, order: Message) -> None:
    for session in ("", "x", "0" * 36):
        for data in (b"", b"x" * 1000):
            attacker.upload(order, session, get_object_id(data), data)
            attacker.upload(order, session, "not a hash", data)


def objects_of_other_trees(attacker: Attacker, order: Message) -> None:
    reply = attacker.reply(order)
    for tree in (ObjectTree(), ObjectTree(object_id="x"), ObjectTree(object_id=f"{5:064x}"), get_object_tree(order)):
        attacker.call("PushMessages", attacker.header(reply, tree))


def no_protobuf(attacker: Attacker, order: Message) -> None:
    for method in METHODS:
        for data in (b"", b"\xff" * 100, b"\x0a\xff\xff\xff\xff\x0f", b"\x00", bytes(range(256))):
            attacker.raw(method, data)


def no_proof(attacker: Attacker, order: Message) -> None:
    """Headers of authentication that are none."""
    channel = open_channel(attacker.address, Credentials(None, None))
    for key, stamp, signature in (
        (b"x", "y", b"z"),
        (b"", "", b""),
        (attacker._public, "2026", b"z"),
        (b"\xff" * 999, "", b""),
    ):
        metadata = (
            ("flwr-public-key-bin", key),
            ("flwr-timestamp", stamp),
            ("flwr-signature-bin", signature),
        )
        for method in METHODS:
            with suppress(grpc.RpcError):
                channel.unary_unary(f"/flwr.proto.Fleet/{method}")(b"", timeout=QUICK, metadata=metadata)
    channel.close()


def no_message(attacker: Attacker, order: Message) -> None:
    channel = open_channel(attacker.address, Credentials(None, None))
    for method in METHODS:
        for messages in ([], [b"", b"", b""]):
            with suppress(grpc.RpcError):
                channel.stream_unary(f"/flwr.proto.Fleet/{method}")(iter(messages), timeout=QUICK)
    channel.close()


def calls_that_wait(attacker: Attacker, order: Message) -> None:
    """Calls of several connections that never send their message."""
    over = threading.Event()

    def silence() -> Iterator[bytes]:
        over.wait(QUICK)
        yield b""

    channels = [open_channel(attacker.address, Credentials(None, None)) for _ in range(2)]
    calls = [
        channel.stream_unary("/flwr.proto.Fleet/PullMessages").future(silence(), timeout=QUICK)
        for channel in channels
        for _ in range(80)
    ]
    time.sleep(0.5)
    over.set()
    for call in calls:
        call.cancel()
    for channel in channels:
        channel.close()


def many_polls(attacker: Attacker, order: Message) -> None:
    """More polls than the server holds for one node, and heartbeats of odd intervals."""
    with ThreadPoolExecutor(50) as pool:
        for _ in range(200):
            pool.submit(attacker.call, "PullMessages", PullMessagesRequest(node=attacker._node), 0.5)
    for interval in (-1.0, 0.0, math.nan, math.inf, 1e308):
        beat = SendNodeHeartbeatRequest(node=attacker._node, heartbeat_interval=interval)
        attacker.call("SendNodeHeartbeat", beat, 1.0)


def many_nodes(attacker: Attacker, order: Message) -> None:
    """Nodes that register, go online, claim to be others, or say nothing."""
    for number in range(40):
        node = Attacker(attacker.address)
        node.call("RegisterNode", RegisterNodeFleetRequest(public_key=node._public))
        if number % 2:
            node.call("ActivateNode", ActivateNodeRequest(public_key=node._public, heartbeat_interval=30.0))
        node.call("ActivateNode", ActivateNodeRequest(public_key=attacker._public, heartbeat_interval=30.0))
        node.call("UnregisterNode", UnregisterNodeFleetRequest(node_id=attacker.node_id))
        node.close()


def a_second_node_for_a_client(attacker: Attacker, order: Message) -> None:
    """It greets as one of the honest, and as the attacker itself, and is sent away."""
    for client in (0, 2, -1, 3, 2**62):
        node = Attacker(attacker.address)
        node.join()
        end = time.monotonic() + QUICK
        while time.monotonic() < end:
            message = node.receive()
            if message is not None:
                node.send(Message(answer(message, client), reply_to=message), 0.0)
                if message.metadata.message_type == "query.farewell":
                    break
        node.leave()
        node.close()


def odd_times(attacker: Attacker, order: Message) -> None:
    for name in ("created_at", "ttl"):
        for value in (math.nan, math.inf, -math.inf, 0.0, -1.0, 1e308):
            reply = attacker.reply(order)
            attacker.call("PushMessages", attacker.header(reply, None, **{name: value}), 2.0)


def odd_headers(attacker: Attacker, order: Message) -> None:
    for changes in (
        {"message_type": "query.hello"},
        {"message_type": "\x1b[31m[/red]"},
        {"message_type": "x" * 20_000},
        {"message_id": "x"},
        {"message_id": ""},
        {"dst_node_id": 7},
        {"group_id": "\n" * 1000},
    ):
        attacker.call("PushMessages", attacker.header(attacker.reply(order), **changes), 2.0)


def many_replies_at_once(attacker: Attacker, order: Message) -> None:
    one = attacker.header(attacker.reply(order))
    for count in (0, 2, 100):
        many = PushMessagesRequest(
            node=Node(node_id=attacker.node_id),
            messages_list=list(one.messages_list) * count,
            message_object_trees=list(one.message_object_trees) * count,
        )
        attacker.call("PushMessages", many)


def an_error_of_markup(attacker: Attacker, order: Message) -> None:
    with suppress(FedoptError):
        attacker.send(Message(Error(2, "[/pytorch/aten/src] [bold] \x1b[2J\n" * 50), reply_to=order), 0.0)


def silence(attacker: Attacker, order: Message) -> None:
    """An order that is fetched and never answered."""


ATTACKS: list[Attack] = [
    *(a_duplicate_push, two_replies_to_one_order, an_unknown_run, an_unknown_order, in_anothers_name, anothers_order),
    *(an_older_reply, an_upload_that_never_comes, a_large_object, large_messages, large_messages_of_nobody),
    *(compressed_messages, many_objects, a_reply_of_many_bytes, other_objects, objects_of_no_reply),
    *(objects_of_other_trees, no_protobuf, no_proof, no_message, calls_that_wait, many_polls, many_nodes),
    *(a_second_node_for_a_client, odd_times, odd_headers, many_replies_at_once, an_error_of_markup, silence),
]

SAMPLE: list[Attack] = [
    *(a_duplicate_push, an_unknown_run, anothers_order, a_large_object, large_messages_of_nobody, many_objects),
    *(a_reply_of_many_bytes, no_protobuf, no_proof, odd_times, an_error_of_markup),
]

UNANSWERED = {an_upload_that_never_comes, silence}
"""Attacks that consist in leaving the order open."""


def attack(attacker: Attacker, attacks: list[Attack], done: list[str]) -> None:
    """Plays one attack a round until the server says farewell; the names of those carried out go to `done`."""
    attacker.join()
    while True:
        message = None
        while message is None:
            try:
                message = attacker.receive()
            except UnknownNode:
                attacker.join()
            except (ConnectionLost, MessageWithdrawn):
                time.sleep(0.1)
        if message.metadata.message_type != "train":
            attacker.send(Message(answer(message, attacker.CLIENT), reply_to=message), 0.0)
            if message.metadata.message_type == "query.farewell":
                attacker.close()
                return
            continue
        if len(done) == len(attacks):
            attacker.give_up(message)
            continue
        chosen = attacks[len(done)]
        try:
            chosen(attacker, message)
            done.append(chosen.__name__)
        except Exception as error:  # shown by the test
            done.append(f"{chosen.__name__}: {error!r}")
        attacker.older.append(attacker.reply(message))
        if chosen not in UNANSWERED:
            attacker.give_up(message)
