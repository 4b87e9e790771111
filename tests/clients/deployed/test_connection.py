"""What a connection leaves out of the log of a client."""

from __future__ import annotations

import logging

from clients.deployed.connection import Connection, Credentials

WARNING = (
    "The gRPC Fleet API is deprecated and may be removed soon. "
    "Please upgrade to Flower 1.40.0 or newer to use the HTTP Fleet API."
)
"""As flwr 1.42 sends it with each heartbeat, in supercore/interceptors/runtime_version_interceptor.py."""


def test_flowers_advice_to_use_another_protocol_is_not_logged_and_its_other_warnings_are() -> None:
    seen: list[str] = []

    class Seen(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record.getMessage())

    handler, flower = Seen(), logging.getLogger("flwr")
    flower.addHandler(handler)
    try:
        for _ in range(2):
            Connection("127.0.0.1:9", Credentials(None, None)).close()
        flower.warning(WARNING)
        flower.warning("another warning")
    finally:
        flower.removeHandler(handler)
    assert seen == ["another warning"]
    assert len([known for known in flower.filters if getattr(known, "__name__", "") == "is_no_advice"]) == 1
