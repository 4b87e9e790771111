"""An interceptor before the Fleet API: reads a call's message only if it is expected, not too large, and there is room.

The methods take one message. Here they are served as methods that take a stream of messages, which is the same on the
wire, so that a call's headers (who sends it, which method it calls) are checked before its message is read. gRPC itself
rejects a message above `grpc.max_receive_message_length` by the length that it begins with.
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

from fedopt.text import plain
from server.flower_internals import PUBLIC_KEY_HEADER, PushObjectResponse, get_metadata_bytes
from server.limits import MessageLimit
from server.refusal_log import RefusalLog

UPLOAD = "/flwr.proto.Fleet/PushObject"
"""The only method whose messages may carry a part of the model."""

MOST_UNREAD = 64
"""Calls of one connection that may wait for their message at once."""

READ_SECONDS = 30.0
"""Seconds within which a call's message must arrive."""


class Uploads(Protocol):
    """Incomplete replies that nodes have announced, by the nodes' public keys."""

    def expected(self, key: bytes) -> bool:
        """Whether objects of one of the node's replies are missing."""
        ...

    def reject(self, key: bytes) -> None:
        """The node sent something that cannot be an object of its reply."""
        ...


class CallGuard(grpc.ServerInterceptor):  # type: ignore[misc]
    """The outermost interceptor: it wraps the handler that the other interceptors have wrapped."""

    def __init__(self, limit: MessageLimit, uploads: Uploads, refusals: RefusalLog) -> None:
        self._limit, self._uploads, self._refusals = limit, uploads, refusals
        self._readers = threading.BoundedSemaphore(limit.readers)
        self._reading: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._timeouts = CallTimeouts(READ_SECONDS)

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler | None:
        method: str = handler_call_details.method
        try:
            handler = continuation(handler_call_details)
        except Exception as error:  # Flower decodes the signed headers, which may be anything
            return _refusal(self._refusals, f"its headers are malformed ({type(error).__name__})")
        if handler is None or handler.unary_unary is None:
            return handler
        if handler.request_deserializer is None:  # Flower's refusal of an unsigned call
            return grpc.stream_unary_rpc_method_handler(lambda _, context: handler.unary_unary(None, context))
        key = get_metadata_bytes(handler_call_details.invocation_metadata, PUBLIC_KEY_HEADER) or b""
        upload = method == UPLOAD

        def handle(messages: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            if upload and not self._uploads.expected(key):
                return PushObjectResponse(stored=False)  # a late client: its reply is no longer wanted
            peer, limit = context.peer(), self._limit.upload if upload else self._limit.call
            raw = self._read(messages, context, peer, method)
            if raw is None or len(raw) > limit:
                if upload:
                    self._uploads.reject(key)
                self._refuse(context, peer, method, f"it did not send a message of at most {limit} bytes")
            try:
                request = handler.request_deserializer(raw)
            except Exception as error:  # protobuf's own errors, of bytes that may be anything
                self._refuse(context, peer, method, f"its message is malformed ({type(error).__name__})")
            return handler.unary_unary(request, context)

        return grpc.stream_unary_rpc_method_handler(handle, None, handler.response_serializer)

    def _read(self, messages: Iterator[bytes], context: grpc.ServicerContext, peer: str, method: str) -> bytes | None:
        """The call's message; None if it does not arrive or gRPC rejects its size. Aborts if too many calls wait."""
        with self._lock:
            self._reading[peer] += 1
            many = self._reading[peer] > MOST_UNREAD
        try:
            if many:
                self._refuse(context, peer, method, f"it has {MOST_UNREAD} open calls without a message")
            if not self._readers.acquire(timeout=READ_SECONDS):
                self._refuse(context, peer, method, "the server has no room for its message")
            try:
                with self._timeouts.limit(context):
                    return next(messages, None)
            except grpc.RpcError:
                return None
            finally:
                self._readers.release()
        finally:
            with self._lock:
                self._reading[peer] -= 1
                if not self._reading[peer]:
                    del self._reading[peer]

    def _refuse(self, context: grpc.ServicerContext, peer: str, method: str, reason: str) -> NoReturn:
        """Aborts the call and logs the reason."""
        name = plain(method.rpartition("/")[2], 40)
        self._refusals.add(f"{name} {reason}", f"refused a call ({name}) from {plain(peer)}: {reason}")
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, reason)
        raise AssertionError("abort raises")


def _refusal(refusals: RefusalLog, reason: str) -> grpc.RpcMethodHandler:
    """A handler that refuses its call without reading the message."""

    def handle(messages: Iterator[bytes], context: grpc.ServicerContext) -> None:
        refusals.add(reason, f"refused a call from {plain(context.peer())}: {reason}")
        context.abort(grpc.StatusCode.UNAUTHENTICATED, reason)

    return grpc.stream_unary_rpc_method_handler(handle)


class CallTimeouts:
    """Cancels calls whose message takes too long; one thread for all of them."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._reading: dict[int, tuple[float, grpc.ServicerContext]] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextmanager
    def limit(self, context: grpc.ServicerContext) -> Iterator[None]:
        """Within this context, the call is cancelled after `seconds`."""
        with self._lock:
            number = next(self._numbers)
            self._reading[number] = (time.monotonic() + self._seconds, context)
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="call timeouts", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                del self._reading[number]

    def _watch(self) -> None:
        while True:
            time.sleep(1.0)
            with self._lock:
                now = time.monotonic()
                late = [context for until, context in self._reading.values() if until < now]
            for context in late:
                context.cancel()
