"""A server and its nodes in one process, without gRPC: link state, object store, Grid and federation are the real ones.

A node answers when its order is pushed: its reply is stored object by object, as the Fleet API would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.app.message import Array, remove_content_from_message
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_id, get_object_tree

from fedopt.algorithms.fedavg import FedAvg
from fedopt.experiment.experiment import Experiment
from fedopt.round.loop import RoundWork
from fedopt.round.method import Method
from fedopt.round.plausibility import Bounds
from fedopt.round.selection import Terms
from fedopt.round.state import ServerState
from fedopt.wire import HELLO, TRAIN, Greeting, Hello
from server.grid_federation import GridFederation
from server.limits import ReplyLimit
from server.links import DirectLink
from server.options import DeploymentOptions
from server.roster import Roster
from server.superlink import SuperLink
from tests.rounds import play_round
from tests.server.hostile.cases import Objects, Reply

SAMPLES, STEPS, CLIENTS, HOSTILE = 10, 5, 3, 2
START = np.array([1.0, -2.0, 3.0, 0.5])
Answer = Callable[[dict[str, Any], np.ndarray], Reply]


def honest(fields: dict[str, Any], dx: np.ndarray) -> RecordDict:
    return RecordDict({"update": ConfigRecord(fields), "vectors": ArrayRecord({"dx": Array(dx)})})


class AtHand(DirectLink):
    """Client N is node N of three; what client HOSTILE answers is up to the test."""

    def __init__(self) -> None:
        self.output: list[str] = []
        superlink = SuperLink(
            "127.0.0.1:0", None, None, self.output.append, START.nbytes
        )  # never entered: nobody connects
        super().__init__(superlink.link._direct)
        self._state, self._mailbox = superlink._state, superlink._mailbox
        self.nodes_of = [
            self._state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, bytes([client]), 0) for client in range(CLIENTS)
        ]
        for node in self.nodes_of:
            self._state.activate_node(node, 1e6)
            self._mailbox.node_connected(node)
        self.answer: Answer = honest
        experiment = Experiment(data={"clients": CLIENTS}, run={"deadline": 5.0, "patience": 5.0})
        roster = Roster(
            self, Hello.of("f", experiment, (1,), ("a",)), CLIENTS, {}, self.output.append, experiment.admission
        )
        self.federation = GridFederation(
            self,
            roster,
            experiment,
            DeploymentOptions("", self.output.append, engine="at hand"),
            least=2,
            federation="f",
        )
        self.federation.wait_for_clients()

    def round(self, answer: Answer) -> tuple[ServerState, RoundWork]:
        """One round from the same start, in which client HOSTILE answers so."""
        self.answer = answer
        state = ServerState.initial(torch.from_numpy(START.copy()), Method(FedAvg()))
        bounds = Bounds(steps=lambda samples, round_, client: STEPS)
        return play_round(state, FedAvg(), self.federation, Terms(3, 3, 2), bounds=bounds)

    def push(self, messages: Iterable[Message]) -> list[str]:
        messages = list(messages)
        ids = super().push(messages)
        for message, message_id in zip(messages, ids, strict=True):
            client = self.nodes_of.index(message.metadata.dst_node_id)
            order = self._state.message_ins_store[message_id]
            self._store(order, self._reply(client, message))
        return ids

    def _reply(self, client: int, message: Message) -> Reply:
        if message.metadata.message_type == HELLO:
            return RecordDict({"greeting": ConfigRecord(dict(Greeting(client, SAMPLES).fields()))})
        assert message.metadata.message_type == TRAIN
        number = message.content.config_records["order"]["round"]
        fields = {"round": number, "client": client, "samples": SAMPLES, "steps": STEPS, "loss": 1.0}
        return (self.answer if client == HOSTILE else honest)(fields, displacement(client))

    def _store(self, order: Message, reply: Reply) -> None:
        objects, header, tree = _uploaded(order, reply)
        session = self._state.start_session(order.metadata.run_id)
        message_id = header.metadata.message_id
        limit = ReplyLimit.of(START.nbytes)
        claimed = self._mailbox.claim(order.metadata.message_id, order.metadata.dst_node_id, message_id, limit.bytes)
        assert claimed
        stored, missing = self._state.store_message_and_object_tree(header, tree, session)
        assert stored
        for object_id in missing:
            found = self._state.store_object(order.metadata.run_id, session, object_id, objects[object_id])
            assert found
        self._mailbox.reply_announced(order.metadata.message_id, session, set())


def displacement(client: int) -> np.ndarray:
    return 0.1 * (client + 1) * np.array([1.0, 2.0, -1.0, 0.5])


def _uploaded(order: Message, reply: Reply) -> tuple[dict[str, bytes], Message, ObjectTree]:
    """All objects of the reply, its header, and the tree of the objects."""
    if not isinstance(reply, Objects):
        message = Message(reply, reply_to=order) if isinstance(reply, RecordDict | Error) else reply
        message.metadata.__dict__["_message_id"] = message.object_id
        objects = {key: item.deflate() for key, item in get_all_nested_objects(message).items()}
        return objects, remove_content_from_message(message), get_object_tree(message)
    empty = Message(RecordDict(), reply_to=order)
    root = Objects("Message", message_to_proto(remove_content_from_message(empty)).SerializeToString(), (reply,))
    header = remove_content_from_message(empty)
    header.metadata.__dict__["_message_id"] = get_object_id(root.deflate())
    objects = {}

    def add(item: Objects) -> ObjectTree:
        data = item.deflate()
        objects[get_object_id(data)] = data
        return ObjectTree(object_id=get_object_id(data), children=[add(child) for child in item.children])

    return objects, header, add(root)
