"""Signs a node's calls with its private key, as Flower's NodeAuthServerInterceptor checks them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
from cryptography.hazmat.primitives.asymmetric import ec

from clients.deployed.flower_internals import (
    PUBLIC_KEY_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    now,
    public_key_to_bytes,
    sign_message,
)


class SigningInterceptor(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    """Adds the public key, the time and a signature of the time to each call's metadata.

    Flower has had no such interceptor since 1.40, where its own nodes speak HTTP.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key, self._public = key, public_key_to_bytes(key.public_key())

    def intercept_unary_unary(
        self, continuation: Callable[[Any, Any], Any], client_call_details: Any, request: Any
    ) -> Any:
        timestamp = now().isoformat()
        signed = [
            *(client_call_details.metadata or ()),
            (PUBLIC_KEY_HEADER, self._public),
            (TIMESTAMP_HEADER, timestamp),
            (SIGNATURE_HEADER, sign_message(self._key, timestamp.encode("ascii"))),
        ]
        return continuation(client_call_details._replace(metadata=signed), request)
