"""Flower nodes inside this process: try an app, or test it, without SuperLink and without Ray."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Iterable, Mapping

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from fedopt.flower.flower_internals import ErrorCode, Run, TaskIdentity

FIRST_NODE = 1000
"""The id of the first node."""


class InProcessGrid(Grid):
    """A Grid whose nodes are calls of a ClientApp, one after the other.

    Parameters
    ----------
    client_app : ClientApp
        The app that every node runs.
    num_nodes : int
        Nodes, which have partition-id = 0, 1, ... and num-partitions in their node config.
    run_config : Optional[Mapping] (default: None)
        The run config that the app reads from its context.
    """

    def __init__(
        self,
        client_app: ClientApp,
        num_nodes: int,
        run_config: Mapping[str, bool | int | float | str] | None = None,
    ) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1  # Message() reads them
        self._app, self._run = client_app, Run.create_empty(1)
        self.contexts = {
            FIRST_NODE + number: Context(
                run_id=1,
                node_id=FIRST_NODE + number,
                node_config={"partition-id": number, "num-partitions": num_nodes},
                state=RecordDict(),
                run_config=dict(run_config or {}),
            )
            for number in range(num_nodes)
        }
        """Each node's context."""
        self._replies: dict[str, Message] = {}
        self._sent = 0

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Delivers the messages and waits for the replies, which `pull_messages` returns."""
        ids: list[str] = []
        for message in messages:
            self._sent += 1
            ids.append(str(self._sent))
            self._replies[ids[-1]] = self._deliver(message)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._replies.pop(given) for given in message_ids if given in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return self.pull_messages(self.push_messages(messages))

    def _deliver(self, message: Message) -> Message:
        """The reply of the message's node; an error that its app raises becomes an error reply, as in Flower."""
        context = self.contexts[message.metadata.dst_node_id]
        received = Message(copy.deepcopy(message.content), message.metadata.dst_node_id, message.metadata.message_type)
        try:
            return self._app(received, context)
        except Exception as error:  # whatever the app of a user raises
            reason = "".join(traceback.format_exception_only(error)).strip()
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=received)
