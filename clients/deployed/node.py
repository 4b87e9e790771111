"""A resident client: one process that stays connected, with torch and its data loaded, and answers in turn.

Two threads: one polls the server and fetches messages, so that the server sees at once when this process is gone;
the other, the caller's, does the work and replies.
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
from flwr.common.constant import ErrorCode

from clients.app import app, order_bytes
from clients.deployed.connection import HELLO_BYTES, Connection, Credentials, Forgotten, Lost, TurnedAway, Withdrawn
from clients.deployed.diagnosis import why_tls_fails
from fedopt.errors import FedoptError, NotStored
from fedopt.text import plain
from fedopt.wire import EVALUATE, FAREWELL, HELLO, TRAIN, Farewell, Greeting, Malformed

MESSAGES = {HELLO, TRAIN, EVALUATE, FAREWELL}

POLL = 0.2
"""Seconds between polls of a server that answers each at once; shorter, a few clients keep a SuperLink busy."""

RETRIES = (0.2, 0.5, 1.0, 2.0)
"""Seconds between attempts to reach a server; the last one repeats."""

NodeConfig = dict[str, Any]


class Node:
    """One client's process."""

    def __init__(self, address: str, credentials: Credentials, config: NodeConfig, tell: Callable[[str], None]) -> None:
        self._address, self._credentials, self._config, self._tell = address, credentials, config, tell
        self._connection = Connection(address, credentials)
        self._inbox: queue.Queue[Message | Exception] = queue.Queue()
        self._context: Context | None = None
        self._done = threading.Event()
        self._not_stored: NotStored | None = None
        """Why this client's state cannot be stored, which ends it."""

    def live(self) -> None:
        """Answers until the server says farewell. TurnedAway if it will have nothing of this client."""
        self._tell(f"looking for a server at {self._address}")
        receiver = threading.Thread(target=self._receive, name="receiver", daemon=True)
        receiver.start()
        try:
            while not self._done.is_set():
                try:
                    message = self._inbox.get(timeout=0.5)  # a wait without end would not notice Ctrl-C everywhere
                except queue.Empty:
                    continue
                if isinstance(message, Exception):
                    raise message
                self._serve(message)
                if self._not_stored is not None:
                    raise self._not_stored
        finally:
            self._done.set()
            self._part()

    def _serve(self, message: Message) -> None:
        metadata = message.metadata
        if metadata.created_at + metadata.ttl < time.time():
            return  # so late that nobody waits for the answer
        start = time.monotonic()
        reply = self._answer(message)
        seconds = time.monotonic() - start
        if metadata.message_type == HELLO and (size := order_bytes(self._context_of(message))) is not None:
            self._connection.most_bytes = HELLO_BYTES + round(1.05 * size)
        try:
            self._connection.send(reply, seconds)
        except (Lost, Forgotten):
            self._tell("the answer could not be delivered: the connection was lost")
            return
        except Withdrawn as error:
            self._tell(str(error))
            return
        self._report(message, reply, seconds)
        if metadata.message_type == FAREWELL and not reply.has_error():
            farewell = Farewell.read(message.content.config_records["farewell"])
            if farewell.failed:
                raise TurnedAway(plain(farewell.reason))
            self._tell(plain(farewell.reason))
            self._done.set()

    def _answer(self, message: Message) -> Message:
        """The app's reply; an error reply, with the reason, for whatever the app raises or returns instead."""
        try:
            if message.metadata.message_type not in MESSAGES:
                raise Malformed(f"it asks for {message.metadata.message_type}")
            reply = app(message, self._context_of(message))
            if isinstance(reply, Message):
                return reply
            reason = f"its handler returned {type(reply).__name__} where a Message belongs"
        except NotStored as error:
            # Every later round would fail in the same way: the server hears of it once, and this client ends.
            remedy = "make room there, and start this client again with the same --state"
            self._not_stored = NotStored(error.reason, remedy)
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, error.reason), reply_to=message)
        except FedoptError as error:
            reason = str(error)
        except (Exception, SystemExit) as error:  # the user's model and data may raise anything; the server is told
            traceback.print_exc()
            reason = f"{type(error).__name__}: {error}"
        reason = plain(reason)
        self._tell(f"could not answer: {reason}")
        # The server shows no more of it, and refuses a reply that is too long.
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

    def _report(self, message: Message, reply: Message, seconds: float) -> None:
        if reply.has_error():
            return
        if message.metadata.message_type == HELLO:
            greeting = Greeting.read(reply.content.config_records["greeting"])
            self._tell(greeting.refusal or f"ready, with {greeting.samples} samples")
        elif message.metadata.message_type == TRAIN:
            update = reply.content.config_records["update"]
            loss = update["loss"]
            assert isinstance(loss, float), "this process has made it"
            self._tell(f"round {update['round']!r}: loss {loss:.4f}, in {seconds:.2f} s")

    def _receive(self) -> None:
        """The receiver's thread: connected as long as there is a server, and waiting for one as long as not."""
        failures, connected = 0, False
        while not self._done.is_set():
            try:
                if not connected:
                    self._connection.join()
                    self._tell(f"connected to {self._address}")
                    failures, connected = 0, True
                asked = time.monotonic()
                message = self._connection.receive()
                if message is not None:
                    self._inbox.put(message)
                elif time.monotonic() - asked < POLL:
                    self._done.wait(POLL)
            except Withdrawn:
                continue
            except Forgotten:
                connected = False
            except Lost as error:
                if self._done.is_set():
                    return
                refusal = why_tls_fails(self._address, self._credentials.ca) if failures == 0 else None
                if refusal is not None:
                    self._inbox.put(TurnedAway(refusal))
                    return
                if connected or failures == 0:
                    self._tell(f"{'lost the server' if connected else 'no server yet'} ({error}); trying again")
                connected = False
                self._done.wait(RETRIES[min(failures, len(RETRIES) - 1)])
                failures += 1
            except Exception as error:  # whatever ends this thread must end the client, and be seen
                self._inbox.put(error)
                return

    def _part(self) -> None:
        with suppress(FedoptError):  # a server that cannot be told finds out
            self._connection.leave()
        self._connection.close()
