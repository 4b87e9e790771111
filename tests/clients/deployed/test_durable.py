"""A client's own files: what it keeps, when it forgets, and what it says when they are not there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clients.deployed.durable import DurableState
from fedopt.errors import BrokenRun

INITIAL = {"c_i": torch.zeros(2, dtype=torch.float64)}


def vector(value: float) -> dict[str, torch.Tensor]:
    return {"c_i": torch.full((2,), value, dtype=torch.float64)}


def value(state: DurableState, accepted: int | None) -> float:
    return float(state.at(accepted)["c_i"][0])


def test_it_survives_the_process_that_wrote_it(tmp_path: Path) -> None:
    DurableState(tmp_path, "abc", 3, INITIAL).put(4, vector(4.0))
    again = DurableState(tmp_path, "abc", 3, INITIAL)
    assert value(again, 4) == 4.0
    assert value(again, None) == 0.0, "the server has used nothing of it"


def test_what_was_never_aggregated_is_dropped_and_what_the_checkpoint_knows_stays(tmp_path: Path) -> None:
    state = DurableState(tmp_path, "abc", 0, INITIAL)
    for round_ in (2, 5, 9):
        state.put(round_, vector(float(round_)))
    state.keep_only({5, 2})  # accepted in 5, the server's checkpoint is from 2; 9 never arrived
    assert value(state, 5) == 5.0
    assert value(state, 2) == 2.0
    with pytest.raises(BrokenRun, match=r"client 0 has no state from round 9.*it has 2, 5 in .*--state"):
        state.at(9)


def test_federations_and_clients_do_not_share(tmp_path: Path) -> None:
    DurableState(tmp_path, "abc", 0, INITIAL).put(1, vector(1.0))
    for federation, client in (("abd", 0), ("abc", 1)):
        with pytest.raises(BrokenRun, match="it has none"):
            DurableState(tmp_path, federation, client, INITIAL).at(1)


def test_an_algorithm_that_keeps_nothing_writes_nothing(tmp_path: Path) -> None:
    state = DurableState(tmp_path, "abc", 0, {})
    state.put(1, {})
    state.keep_only({1})
    assert state.at(1) == {}
    assert not list(tmp_path.iterdir())


def test_a_file_that_was_touched_is_refused(tmp_path: Path) -> None:
    state = DurableState(tmp_path, "abc", 0, INITIAL)
    state.put(1, vector(1.0))
    (file,) = tmp_path.rglob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(BrokenRun, match="checksum"):
        state.at(1)


@pytest.mark.parametrize("name", ["", "../up", "/etc", "a/b", "A", "a" * 65])
def test_a_federations_name_cannot_lead_elsewhere(name: str, tmp_path: Path) -> None:
    with pytest.raises(BrokenRun, match="cannot name a federation"):
        DurableState(tmp_path, name, 0, INITIAL)
