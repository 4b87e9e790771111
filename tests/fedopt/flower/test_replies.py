"""Replies that a strategy cannot use are left out, and the others count as they would without them."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Context, Message
from flwr.clientapp import ClientApp

import fedopt.flower
from tests.fedopt.flower.small_apps import Normalized, play, training


def empty(reply: Message) -> None:
    reply.content.clear()


def too_long(reply: Message) -> None:
    reply.content["up"] = ArrayRecord({"dx": Array(np.zeros(19)), "dc": Array(np.zeros(19))})


def one_missing(reply: Message) -> None:
    del reply.content.array_records["up"]["dc"]


def without_end(reply: Message) -> None:
    reply.content.config_records["fedopt"]["steps"] = float("inf")


def more_samples(reply: Message) -> None:
    reply.content.metric_records["metrics"]["num-examples"] = 10**6


def other_round(reply: Message) -> None:
    reply.content.config_records["fedopt"]["round"] = 7


def short_buffers(reply: Message) -> None:
    reply.content.array_records["buffers"]["norm.running_mean"] = Array(np.zeros(1))


def odd_buffers(reply: Message) -> None:
    reply.content.array_records["buffers"]["norm.running_var"] = Array(np.full(4, np.nan))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (empty, "its reply cannot be read"),
        (too_long, r"dx is torch.float64 \(19,\), the model torch.float64 \(23,\)"),
        (one_missing, r"it brings \['dx'\] where \['dc', 'dx'\] belong"),
        (without_end, "its reply cannot be read"),
        (more_samples, "it reports 1000000 samples, the client has 6"),
        (other_round, "it belongs to round 7, not 1"),
        (short_buffers, r"norm.running_mean is of shape \(1,\)"),
        (odd_buffers, "its buffers are not finite"),
    ],
)
def test_a_reply_that_cannot_be_used_leaves_the_others_as_they_were(
    spoil: Callable[[Message], None], sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The round with the spoiled reply of client 0 is the round in which client 0 fails."""
    honest = training(Normalized).app()

    def app_with(change: Callable[[Message], None]) -> ClientApp:
        app = ClientApp()
        app.query("hello")(honest._registered_funcs["query.hello"])

        @app.train()
        def _train(msg: Message, context: Context) -> Message:
            reply = honest(msg, context)
            if context.node_config["partition-id"] == 0:
                change(reply)
            return reply

        app.evaluate()(honest._registered_funcs["evaluate.default"])
        return app

    def fail(reply: Message) -> None:
        raise RuntimeError("fails")

    found = play(fedopt.flower.Scaffold(Normalized()), app_with(spoil), Normalized())
    warnings = " ".join(record.getMessage() for record in caplog.records)
    assert re.search(sentence, warnings), warnings
    expected = play(fedopt.flower.Scaffold(Normalized()), app_with(fail), Normalized())
    assert all(torch.equal(found[name], expected[name]) for name in expected)
