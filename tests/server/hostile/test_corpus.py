"""Whatever a client replies, the round goes on without it, and says why on one short line."""

from __future__ import annotations

import functools
import io
import json
from typing import Any

import numpy as np
import pytest
from flwr.app import RecordDict
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from rich.console import Console

from fedopt.logs import Terminal
from fedopt.round.loop import RoundWork
from fedopt.runs.history import RoundRecord
from fedopt.runs.progress import LiveProgress, PlainProgress
from fedopt.runs.round_log import RoundLog, log
from fedopt.text import LONGEST
from tests.server.hostile.at_hand import HOSTILE, START, AtHand, displacement, honest
from tests.server.hostile.cases import Case, as_declared, content, npy
from tests.server.hostile.corpus import corpus

CASES = corpus()


def shown(work: RoundWork) -> str:
    """What a terminal gets of it."""
    stream = io.StringIO()
    console = Console(file=stream, width=200)
    record = RoundRecord(
        **{key: getattr(work, key) for key in ("round", "cohort", "left_out", "samples", "local_steps", "train_loss")},
        **{key: getattr(work, key) for key in ("update_norm", "bytes_down", "bytes_up", "seconds")},
        test_loss=None,
        test_accuracy=None,
    )
    terminal = Terminal(console, 0, quiet=False)
    log.addHandler(terminal)
    try:
        for observer in (PlainProgress(console), LiveProgress(console), RoundLog()):
            observer.round_done(record)
    finally:
        log.removeHandler(terminal)
    json.loads(record.model_dump_json())
    return stream.getvalue()


def check(server: AtHand, case: Case) -> str:
    """What is wrong with how the server took the case; "" if nothing is."""
    state, work = server.round(case.build)
    clients = (0, 1, 2) if case.harmless else (0, 1)
    expected = START + np.mean([displacement(client) for client in clients], axis=0)
    if case.harmless != (HOSTILE not in work.left_out):
        return f"left out: {work.left_out}"
    if not np.allclose(state.x.numpy(), expected, rtol=0, atol=1e-12):
        return f"the model is {state.x.numpy()}, not {expected}"
    reason = work.left_out.get(HOSTILE, "")
    if len(reason) > LONGEST or any(not sign.isprintable() for sign in reason):
        return f"the reason is {reason!r}"
    if reason not in shown(work):
        return f"shown as {shown(work)!r}"
    return ""


def play(cases: list[Case]) -> None:
    server = AtHand()
    wrong = {case.name: found for case in cases if (found := check(server, case))}
    assert not wrong
    assert not server._state.message_res_store, "replies are discarded"
    assert not server._mailbox._replies
    assert not server._mailbox._slot_holders
    store = server._state.object_store
    assert isinstance(store, InMemoryObjectStore)
    assert not store.store, "so are their objects"


def test_the_corpus_has_many_cases_each_of_its_own() -> None:
    assert len(CASES) >= 344
    assert len({case.name for case in CASES}) == len(CASES)


def test_an_honest_reply_is_taken() -> None:
    assert not check(AtHand(), Case("honest", honest, harmless=True))


def test_every_malformed_reply_is_refused_and_the_others_make_the_round() -> None:
    play(CASES)


@pytest.mark.parametrize("seed", [pytest.param(0), pytest.param(1, marks=pytest.mark.slow)])
def test_replies_with_bytes_changed_at_random_end_nothing(seed: int) -> None:
    """Of a good reply, a few bytes of the array are others: it is refused, or its numbers are finite and plausible."""
    rng = np.random.default_rng(seed)
    server = AtHand()
    for _ in range(100):
        changes = list(zip(rng.integers(0, 128, 3).tolist(), rng.integers(0, 256, 3).tolist(), strict=True))
        state, _ = server.round(functools.partial(_changed, changes))
        assert np.isfinite(state.x.numpy()).all()


def _changed(changes: list[tuple[int, int]], fields: dict[str, Any], x: np.ndarray) -> RecordDict:
    data = bytearray(npy(x))
    for place, value in changes:
        data[place] = value
    return content(fields, dx=as_declared(x, bytes(data)))
