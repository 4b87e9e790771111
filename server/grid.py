"""A Flower Grid in the SuperLink's own process: no HTTP between them, and no polling.

Flower's HttpGrid polls its SuperLink and fetches objects one by one. This Grid reads the link state and object store
directly, and waits until the servicer reports a change.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator

from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid

from fedopt.text import plain
from server.flower_internals import (
    ErrorCode,
    InMemoryLinkState,
    NoObjectInStoreError,
    ObjectTree,
    Run,
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    make_message,
    no_object_id_recompute,
    remove_content_from_message,
)
from server.limits import ReplyLimit
from server.mailbox import Mailbox
from server.replies import TooLarge, read_reply

LOOK = 1.0
"""Seconds between checks for messages that will not be answered because their nodes have disconnected."""

REFUSED = 1001
"""The error code of a reply that was refused. Flower's own codes are below 100."""

log = logging.getLogger("fedopt.server")


class DirectGrid(Grid):
    """A Grid over the link state of this process."""

    def __init__(self, state: InMemoryLinkState, run: Run, mailbox: Mailbox) -> None:
        self._state, self._run, self._mailbox = state, run, mailbox
        self._changes, self._looked = 0, 0.0

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
        """Sends messages. Returns their ids, "" for a message whose node is offline."""
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
                    self._mailbox.add_message(message.metadata.dst_node_id, message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterator[Message]:
        """Yields complete replies one by one, so that only one is in memory."""
        ids = set(message_ids)
        yield from self._read(self._mailbox.take_complete(ids))
        if time.monotonic() - self._looked > LOOK:
            self._looked = time.monotonic()
            yield from self._read(self._unanswerable(ids))

    def _unanswerable(self, ids: set[str]) -> list[str]:
        """Messages whose nodes are offline. The link state makes error replies for them."""
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
                reason = self._mailbox.refusal(message_id)
                order = self._state.message_ins_store.get(message_id)
                if reason and order is not None:
                    yield Message(Error(REFUSED, reason), reply_to=order)
                    continue
                for header in self._state.get_message_res(message_ids={message_id}, run_id=self._run.run_id):
                    yield self._with_content(header)
            finally:  # the caller may stop iterating here
                self.discard([message_id])

    def _with_content(self, header: Message) -> Message:
        """The reply with its uploaded content; an error reply if the content cannot be read."""
        if header.has_error():
            return header
        try:
            reply = self._assemble(header.metadata.message_id)
        except NoObjectInStoreError:
            return make_message(
                header.metadata, error=Error(ErrorCode.REPLY_MESSAGE_UNAVAILABLE, "its reply is incomplete")
            )
        except TooLarge as error:
            return make_message(header.metadata, error=Error(REFUSED, str(error)))
        except Exception as error:  # untrusted bytes may raise anything in Flower's reader; they must not end the run
            kind = type(error).__name__
            log.warning("a reply of node %s is malformed: %s: %s", header.metadata.src_node_id, kind, plain(error))
            return make_message(header.metadata, error=Error(REFUSED, f"it is malformed ({kind})"))
        # Only the header's metadata were checked by the link state, not those of the uploaded message.
        return make_message(header.metadata, content=reply.content)

    def _assemble(self, message_id: str) -> Message:
        store = self._state.object_store
        tree: ObjectTree = store.get_object_tree(message_id)
        contents = {node.object_id: store.get(node.object_id) or b"" for node in iterate_object_tree(tree)}
        return read_reply(message_id, contents, self._mailbox.limit.bytes)

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

    # What Flower's Grid lacks

    def wait(self, seconds: float) -> None:
        """Waits until there may be a reply to pull, or a node has connected or disconnected."""
        self._changes = self._mailbox.wait_for_change(self._changes, min(seconds, LOOK))

    def discard(self, message_ids: Iterable[str]) -> None:
        """Forgets messages and their replies; later replies are refused."""
        for message_id in message_ids:
            order = self._state.message_ins_store.get(message_id)
            answer = self._state.message_ins_id_to_message_res_id.get(message_id)
            self._state.delete_messages({message_id})
            for root in (message_id, answer):
                if root is not None:
                    self._delete_objects(root)
            self._mailbox.forget(message_id)
            if order is not None:
                self._mailbox.message_fetched(order.metadata.dst_node_id, message_id)

    def _delete_objects(self, root: str) -> None:
        try:
            self._state.object_store.delete(root)
        except (RecursionError, KeyError) as error:  # an untrusted client may nest objects as deeply as it likes
            log.warning("objects of a reply could not be deleted (%s)", type(error).__name__)

    def limit_replies(self, slots: int, reply_bytes: int) -> None:
        """Limits how many replies to orders are on the server at once; `reply_bytes` is the size of one's vectors."""
        self._mailbox.limit_replies(slots, ReplyLimit.of(reply_bytes))

    def connects(self, node: int) -> int:
        """How often the node has come online."""
        return self._mailbox.connects(node)

    def traffic(self, node: int) -> tuple[int, int]:
        """Bytes sent to the node and received from it so far."""
        return self._mailbox.traffic(node)
