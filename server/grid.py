"""A Flower Grid in the SuperLink's own process: no HTTP between them, and no polling.

Flower's HttpGrid asks its SuperLink every so often and fetches objects one by one; this one reads the same link
state and object store directly, and waits until the servicer says that something has come.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator

from flwr.app import Error, Message, RecordDict
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.constant import ErrorCode
from flwr.proto.message_pb2 import ObjectTree
from flwr.server.superlink.linkstate import InMemoryLinkState
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.object_store import NoObjectInStoreError
from flwr.supercore.run import Run

from fedopt.text import plain
from server.limits import ReplyLimit
from server.mailbox import Post
from server.replies import TooLarge, read_reply

LOOK = 1.0
"""Seconds between looks for messages that will not be answered: their nodes are gone, or their time is over."""


REFUSED = 1001
"""The code of an error reply that stands for one that was not taken; Flower's own codes are below 100."""

log = logging.getLogger("fedopt")


class DirectGrid(Grid):
    """A Grid over a link state in this process."""

    def __init__(self, state: InMemoryLinkState, run: Run, post: Post) -> None:
        self._state, self._run, self._post = state, run, post
        self._news, self._looked = 0, 0.0

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def get_node_ids(self) -> Iterable[int]:
        return self._state.get_nodes(self._run.run_id)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Their ids, "" for those that cannot be sent: their node is not there."""
        ids: list[str] = []
        with no_object_id_recompute():
            for message in messages:
                message.metadata.__dict__["_message_id"] = message.object_id
                session = self._state.start_session(self._run.run_id)
                stored, missing = self._state.store_message_and_object_tree(
                    remove_content_from_message(message), get_object_tree(message), session
                )
                objects = get_all_nested_objects(message)
                for object_id in missing:
                    self._state.store_object(self._run.run_id, session, object_id, objects[object_id].deflate())
                ids.append(message.metadata.message_id if stored else "")
                if stored:
                    self._post.post(message.metadata.dst_node_id, message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        """Replies that are whole, one by one: the next is read when the one before has been dealt with."""
        ids = set(message_ids)
        yield from self._read(self._post.take_whole(ids))
        if time.monotonic() - self._looked > LOOK:
            self._looked = time.monotonic()
            yield from self._read(self._hopeless(ids))

    def _hopeless(self, ids: set[str]) -> list[str]:
        """Those whose nodes are gone, for which the link state makes up error replies."""
        online = self._state.get_nodes(self._run.run_id)
        orders = {message_id: self._state.message_ins_store.get(message_id) for message_id in ids}
        return [
            message_id
            for message_id, order in orders.items()
            if order is not None and order.metadata.dst_node_id not in online
        ]

    def _read(self, ids: Iterable[str]) -> Iterator[Message]:
        for message_id in ids:
            try:
                reason = self._post.refusal(message_id)
                order = self._state.message_ins_store.get(message_id)
                if reason and order is not None:
                    yield Message(Error(REFUSED, reason), reply_to=order)
                    continue
                for header in self._state.get_message_res(message_ids={message_id}, run_id=self._run.run_id):
                    yield self._with_content(header)
            finally:  # the reader may stop here
                self.discard([message_id])

    def _with_content(self, header: Message) -> Message:
        """The reply with what was uploaded for it; an error reply where that cannot be read."""
        if header.has_error():
            return header
        try:
            reply = self._put_together(header.metadata.message_id)
        except NoObjectInStoreError:
            return make_message(
                header.metadata, error=Error(ErrorCode.REPLY_MESSAGE_UNAVAILABLE, "its reply is incomplete")
            )
        except TooLarge as error:
            return make_message(header.metadata, error=Error(REFUSED, str(error)))
        except Exception as error:  # a stranger's bytes: whatever they raise in Flower's reader, they end no run
            kind = type(error).__name__
            log.warning("a reply of node %s is malformed: %s: %s", header.metadata.src_node_id, kind, plain(error))
            return make_message(header.metadata, error=Error(REFUSED, f"it is malformed ({kind})"))
        # Of the two, the link state has checked the header's metadata alone.
        return make_message(header.metadata, content=reply.content)

    def _put_together(self, message_id: str) -> Message:
        store = self._state.object_store
        tree: ObjectTree = store.get_object_tree(message_id)
        contents = {node.object_id: store.get(node.object_id) or b"" for node in iterate_object_tree(tree)}
        return read_reply(message_id, contents, self._post.limit.bytes)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        until = None if timeout is None else time.monotonic() + timeout
        waiting = {message_id for message_id in self.push_messages(messages) if message_id}
        replies: list[Message] = []
        while waiting and (until is None or time.monotonic() < until):
            self.wait(LOOK)
            for reply in self.pull_messages(waiting):
                waiting.discard(reply.metadata.reply_to_message_id)
                replies.append(reply)
        return replies

    # Beyond Flower's Grid

    def wait(self, seconds: float) -> None:
        """Until there may be something new to pull, or a node has come or gone."""
        self._news = self._post.await_news(self._news, min(seconds, LOOK))

    def discard(self, message_ids: Iterable[str]) -> None:
        """Forgets messages and what has come in answer; later answers are refused."""
        for message_id in message_ids:
            order = self._state.message_ins_store.get(message_id)
            answer = self._state.message_ins_id_to_message_res_id.get(message_id)
            self._state.delete_messages({message_id})
            for root in (message_id, answer):
                if root is not None:
                    self._delete_objects(root)
            self._post.dealt_with(message_id)
            if order is not None:
                self._post.fetched(order.metadata.dst_node_id, message_id)

    def _delete_objects(self, root: str) -> None:
        try:
            self._state.object_store.delete(root)
        except (RecursionError, KeyError) as error:  # a stranger may nest and share objects as deeply as it likes
            log.warning("objects of a reply could not be deleted (%s)", type(error).__name__)

    def make_room(self, slots: int, reply_bytes: int) -> None:
        """How many answers to orders may be here at once, and how large the vectors of one are."""
        self._post.make_room(slots, ReplyLimit.of(reply_bytes))

    def arrivals(self, node: int) -> int:
        """How often the node has come on line."""
        return self._post.arrivals(node)

    def traffic(self, node: int) -> tuple[int, int]:
        """Bytes of the node's calls so far, to it and from it."""
        return self._post.traffic(node)
