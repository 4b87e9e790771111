"""What a hostile node may do over gRPC besides sending a malformed update. Each attack happens in its own round.

An attack gets the order that its node was sent. If it leaves the order unanswered, the attacker finally reports a
failure, so that the round need not wait for the deadline.
"""

from __future__ import annotations

import time

from flwr.app import Message

from clients.deployed.connection import (
    ConnectionLost,
    MessageWithdrawn,
    UnknownNode,
)
from tests.server.hostile.attacker import Attack, Attacker
from tests.server.hostile.call_attacks import (
    a_second_node_for_a_client,
    calls_that_wait,
    compressed_messages,
    large_messages,
    large_messages_of_nobody,
    many_nodes,
    many_polls,
    no_message,
    no_proof,
    no_protobuf,
)
from tests.server.hostile.reply_attacks import (
    a_duplicate_push,
    a_large_object,
    a_reply_of_many_bytes,
    an_error_of_markup,
    an_older_reply,
    an_unknown_order,
    an_unknown_run,
    an_upload_that_never_comes,
    anothers_order,
    in_anothers_name,
    many_objects,
    many_replies_at_once,
    objects_of_no_reply,
    objects_of_other_trees,
    odd_headers,
    odd_times,
    other_objects,
    silence,
    two_replies_to_one_order,
)
from tests.swarm import answer

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
