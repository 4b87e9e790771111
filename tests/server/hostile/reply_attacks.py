"""Attacks by replies: their headers, objects and order. Each gets the order that the attacker's node was sent."""

from __future__ import annotations

import math
from contextlib import suppress

from flwr.app import Error, Message
from flwr.proto.fleet_pb2 import (
    PushMessagesRequest,
)
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree, PullObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_id, get_object_tree

from fedopt.errors import FedoptError
from tests.server.hostile.attacker import Attacker


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
