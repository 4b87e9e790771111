"""What stands before the Fleet API: reads a call's message only if it may come, has room and is not too large.

The methods take one message; here they are served as if they took a stream of them, which is the same on the wire. So
a call is seen before its message is read: by its headers, who sends it and which method it is for. gRPC itself cuts
off a message above `grpc.max_receive_message_length`, from the length that it begins with.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, Protocol

import grpc
from flwr.common.constant import PUBLIC_KEY_HEADER
from flwr.proto.message_pb2 import PushObjectResponse
from flwr.supercore.utils import get_metadata_bytes

from fedopt.text import plain
from server.limits import MessageLimit
from server.refusal_log import Complaints

UPLOAD = "/flwr.proto.Fleet/PushObject"
"""The one method whose messages may be as large as a part of the model."""

UNREAD = 64
"""Calls of one connection whose messages may be awaited at once; clients that share one are briefly more."""

SECONDS = 30.0
"""Within which a message must have come, once its call has."""


class Uploads(Protocol):
    """The replies that nodes have announced and that are not whole yet, by the keys that the nodes prove."""

    def awaited(self, key: bytes) -> bool:
        """Whether objects of a reply of the node's are missing."""
        ...

    def spoiled(self, key: bytes) -> None:
        """The node sent what can be no object of its reply."""
        ...


class Gate(grpc.ServerInterceptor):  # type: ignore[misc]
    """The outermost interceptor: it gets the handler that the others have wrapped."""

    def __init__(self, limit: MessageLimit, uploads: Uploads, complaints: Complaints) -> None:
        self._limit, self._uploads, self._complaints = limit, uploads, complaints
        self._readers = threading.BoundedSemaphore(limit.readers)
        self._awaited: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._overdue = Overdue(SECONDS)

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler | None:
        method: str = handler_call_details.method
        try:
            handler = continuation(handler_call_details)
        except Exception as error:  # Flower decodes the headers that prove who calls; they may be anything
            return _refusal(self._complaints, f"its headers are malformed ({type(error).__name__})")
        if handler is None or handler.unary_unary is None:
            return handler
        if handler.request_deserializer is None:  # Flower's refusal of a call that proves nothing
            return grpc.stream_unary_rpc_method_handler(lambda _, context: handler.unary_unary(None, context))
        key = get_metadata_bytes(handler_call_details.invocation_metadata, PUBLIC_KEY_HEADER) or b""
        upload = method == UPLOAD

        def behave(messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            if upload and not self._uploads.awaited(key):
                return PushObjectResponse(stored=False)  # to a late client: its reply is not wanted any more
            peer, limit = context.peer(), self._limit.upload if upload else self._limit.call
            raw = self._read(messages, context, peer, method)
            if raw is None or len(raw) > limit:
                if upload:
                    self._uploads.spoiled(key)
                self._refuse(context, peer, method, f"it did not send a message of at most {limit} bytes")
            try:
                request = handler.request_deserializer(raw)
            except Exception as error:  # protobuf's own errors, of bytes that may be anything
                self._refuse(context, peer, method, f"its message is malformed ({type(error).__name__})")
            return handler.unary_unary(request, context)

        return grpc.stream_unary_rpc_method_handler(behave, None, handler.response_serializer)

    def _read(self, messages: Iterator[bytes], context: grpc.ServicerContext, peer: str, method: str) -> bytes | None:
        """The call's message; None if it does not come or is far too large. The call is aborted if many are awaited."""
        with self._lock:
            self._awaited[peer] += 1
            many = self._awaited[peer] > UNREAD
        try:
            if many:
                self._refuse(context, peer, method, f"it has {UNREAD} calls open that bring no message")
            if not self._readers.acquire(timeout=SECONDS):
                self._refuse(context, peer, method, "the server has no room for its message")
            try:
                with self._overdue.cancelled(context):
                    return next(messages, None)
            except grpc.RpcError:
                return None
            finally:
                self._readers.release()
        finally:
            with self._lock:
                self._awaited[peer] -= 1
                if not self._awaited[peer]:
                    del self._awaited[peer]

    def _refuse(self, context: grpc.ServicerContext, peer: str, method: str, reason: str) -> NoReturn:
        """Ends the call, and reports it."""
        name = plain(method.rpartition("/")[2], 40)
        self._complaints.add(f"{name} {reason}", f"refused a call ({name}) from {plain(peer)}: {reason}")
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, reason)
        raise AssertionError("abort raises")


def _refusal(complaints: Complaints, reason: str) -> grpc.RpcMethodHandler:
    """A handler that refuses its call unread."""

    def behave(messages: Iterator[bytes], context: grpc.ServicerContext) -> None:
        complaints.add(reason, f"refused a call from {plain(context.peer())}: {reason}")
        context.abort(grpc.StatusCode.UNAUTHENTICATED, reason)

    return grpc.stream_unary_rpc_method_handler(behave)


class Overdue:
    """Cancels calls that are awaited for too long; one thread for all of them."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._awaited: dict[int, tuple[float, grpc.ServicerContext]] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def cancelled(self, context: grpc.ServicerContext) -> Iterator[None]:
        """While this is entered, the call is cancelled when its time is over."""
        with self._lock:
            number = next(self._numbers)
            self._awaited[number] = (time.monotonic() + self._seconds, context)
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="overdue", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                del self._awaited[number]

    def _watch(self) -> None:
        while True:
            time.sleep(1.0)
            with self._lock:
                now = time.monotonic()
                late = [context for until, context in self._awaited.values() if until < now]
            for context in late:
                context.cancel()
