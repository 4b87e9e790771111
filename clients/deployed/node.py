"""A resident client: one process that stays connected, with torch and its data loaded, and answers in turn.

It has two threads. One polls the server and fetches messages, so that the server notices at once when this process
ends. The other, the caller's, does the work and replies.
"""

from __future__ import annotations

import queue
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from flwr.app import Context, Error, Message, RecordDict

from clients.app import app, order_bytes
from clients.deployed.connection import (
    HELLO_BYTES,
    Connection,
    ConnectionLost,
    Credentials,
    MessageWithdrawn,
    Rejected,
    UnknownNode,
)
from clients.deployed.diagnosis import why_tls_fails
from clients.deployed.flower_internals import ErrorCode
from fedopt.errors import FedoptError, NotStored
from fedopt.text import plain
from fedopt.wire import EVALUATE, FAREWELL, HELLO, TRAIN, Farewell, Greeting, Malformed

MESSAGES = {HELLO, TRAIN, EVALUATE, FAREWELL}

POLL = 0.2
"""Seconds between polls of a server that does not hold them. With less, a few clients keep a SuperLink busy."""

RETRIES = (0.2, 0.5, 1.0, 2.0)
"""Seconds between attempts to connect; the last value repeats."""

NodeConfig = dict[str, Any]


class Node:
    """Runs one client in this process."""

    def __init__(
        self, address: str, credentials: Credentials, config: NodeConfig, report: Callable[[str], None]
    ) -> None:
        self._address, self._credentials, self._config, self._report = address, credentials, config, report
        self._connection = Connection(address, credentials)
        self._inbox: queue.Queue[Message | Exception] = queue.Queue()
        self._context: Context | None = None
        self._done = threading.Event()
        self._storage_error: NotStored | None = None
        """Set when this client's state cannot be stored, which ends the client."""

    def run(self) -> None:
        """Answers messages until the server's farewell. Raises Rejected if the server refuses this client."""
        self._report(f"connecting to {self._address}")
        receiver = threading.Thread(target=self._receive, name="receiver", daemon=True)
        receiver.start()
        try:
            while not self._done.is_set():
                try:
                    message = self._inbox.get(
                        timeout=0.5
                    )  # a wait without timeout does not notice Ctrl-C on every system
                except queue.Empty:
                    continue
                if isinstance(message, Exception):
                    raise message
                self._handle(message)
                if self._storage_error is not None:
                    raise self._storage_error
        finally:
            self._done.set()
            self._disconnect()

    def _handle(self, message: Message) -> None:
        metadata = message.metadata
        if metadata.created_at + metadata.ttl < time.time():
            return  # expired: the server no longer waits for the answer
        start = time.monotonic()
        reply = self._answer(message)
        seconds = time.monotonic() - start
        if metadata.message_type == HELLO and (size := order_bytes(self._context_of(message))) is not None:
            self._connection.most_bytes = HELLO_BYTES + round(1.05 * size)
        try:
            self._connection.send(reply, seconds)
        except (ConnectionLost, UnknownNode):
            self._report("the reply could not be sent: the connection was lost")
            return
        except MessageWithdrawn as error:
            self._report(str(error))
            return
        self._report_done(message, reply, seconds)
        if metadata.message_type == FAREWELL and not reply.has_error():
            farewell = Farewell.read(message.content.config_records["farewell"])
            if farewell.failed:
                raise Rejected(plain(farewell.reason))
            self._report(plain(farewell.reason))
            self._done.set()

    def _answer(self, message: Message) -> Message:
        """The app's reply, or an error reply with the reason if the app raises or returns anything else."""
        try:
            if message.metadata.message_type not in MESSAGES:
                raise Malformed(f"it asks for {message.metadata.message_type}")
            reply = app(message, self._context_of(message))
            if isinstance(reply, Message):
                return reply
            reason = f"its handler returned {type(reply).__name__} instead of a Message"
        except NotStored as error:
            # Every later round would fail in the same way: this reply tells the server, then the client ends.
            remedy = "free some space, and start this client again with the same --state"
            self._storage_error = NotStored(error.reason, remedy)
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, error.reason), reply_to=message)
        except FedoptError as error:
            reason = str(error)
        except (
            Exception,
            SystemExit,
        ) as error:  # the user's model and data may raise anything, which is reported to the server
            traceback.print_exc()
            reason = f"{type(error).__name__}: {error}"
        reason = plain(reason)
        self._report(f"could not answer: {reason}")
        # The server shows at most this much, and refuses longer replies.
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, plain(reason)), reply_to=message)

    def _context_of(self, message: Message) -> Context:
        run_id = message.metadata.run_id
        if self._context is None or self._context.run_id != run_id:
            self._context = Context(
                run_id=run_id,
                node_id=self._connection.node_id,
                node_config=self._config,
                state=RecordDict(),
                run_config={},
            )
        return self._context

    def _report_done(self, message: Message, reply: Message, seconds: float) -> None:
        if reply.has_error():
            return
        if message.metadata.message_type == HELLO:
            greeting = Greeting.read(reply.content.config_records["greeting"])
            self._report(greeting.refusal or f"ready, with {greeting.samples} samples")
        elif message.metadata.message_type == TRAIN:
            update = reply.content.config_records["update"]
            loss = update["loss"]
            assert isinstance(loss, float), "the reply was made by this process"
            self._report(f"round {update['round']!r}: loss {loss:.4f}, in {seconds:.2f} s")

    def _receive(self) -> None:
        """The receiver thread: connects, receives messages, and reconnects when the connection is lost."""
        failures, connected = 0, False
        while not self._done.is_set():
            try:
                if not connected:
                    self._connection.join()
                    self._report(f"connected to {self._address}")
                    failures, connected = 0, True
                asked = time.monotonic()
                message = self._connection.receive()
                if message is not None:
                    self._inbox.put(message)
                elif time.monotonic() - asked < POLL:
                    self._done.wait(POLL)
            except MessageWithdrawn:
                continue
            except UnknownNode:
                connected = False
            except ConnectionLost as error:
                if self._done.is_set():
                    return
                refusal = why_tls_fails(self._address, self._credentials.ca) if failures == 0 else None
                if refusal is not None:
                    self._inbox.put(Rejected(refusal))
                    return
                if connected or failures == 0:
                    self._report(f"{'lost the server' if connected else 'no server yet'} ({error}); retrying")
                connected = False
                self._done.wait(RETRIES[min(failures, len(RETRIES) - 1)])
                failures += 1
            except Exception as error:  # an error that ends this thread must end the client and be reported
                self._inbox.put(error)
                return

    def _disconnect(self) -> None:
        with suppress(FedoptError):  # the server notices by itself if this call fails
            self._connection.leave()
        self._connection.close()
