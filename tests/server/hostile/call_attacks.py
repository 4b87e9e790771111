"""Attacks by calls, connections and nodes. Each gets the order that the attacker's node was sent."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import grpc
from flwr.app import Message
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    PullMessagesRequest,
    RegisterNodeFleetRequest,
    UnregisterNodeFleetRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest

from clients.deployed.connection import (
    Credentials,
    open_channel,
)
from tests.server.hostile.attacker import METHODS, QUICK, Attacker
from tests.swarm import answer


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
