"""What clients keep: promoted or dropped as the server says, and never half read from disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clients.lanes.state import ClientStates
from fedopt.errors import BrokenRun


def vector(value: float) -> dict[str, torch.Tensor]:
    return {"c_i": torch.full((3,), value)}


@pytest.fixture
def states() -> ClientStates:
    return ClientStates(vector(0.0))


def value(states: ClientStates, client: int, accepted: int | None) -> float:
    return float(states.at(client, accepted)["c_i"][0])


def test_a_client_starts_at_zero_however_late_it_joins(states: ClientStates) -> None:
    states.put(1, 4, vector(4.0))
    assert value(states, 7, None) == 0.0


def test_the_version_the_server_accepted_counts(states: ClientStates) -> None:
    states.put(1, 4, vector(4.0))
    states.put(1, 9, vector(9.0))
    assert value(states, 1, 4) == 4.0
    assert value(states, 1, 9) == 9.0


def test_work_that_was_never_aggregated_is_dropped(states: ClientStates) -> None:
    states.put(1, 4, vector(4.0))
    states.put(1, 9, vector(9.0))
    states.put(2, 9, vector(9.0))
    states.commit({1: 4})
    assert value(states, 1, 4) == 4.0
    with pytest.raises(BrokenRun, match="client 1 has no state from round 9"):
        states.at(1, 9)
    assert value(states, 2, None) == 0.0


def test_what_is_kept_does_not_hold_the_lanes_it_came_from(states: ClientStates) -> None:
    lanes = torch.zeros(100, 3)
    states.put(1, 1, {"c_i": lanes[5]})
    lanes[5] = 1.0
    assert value(states, 1, 1) == 0.0


def test_rows_of_dropped_versions_are_used_again_and_never_shared(states: ClientStates) -> None:
    for round_ in range(1, 50):
        for client in range(5):
            states.put(client, round_, vector(100.0 * round_ + client))
        states.commit(dict.fromkeys(range(5), round_) | {0: 1})
        if round_ > 1:
            assert value(states, 0, 1) == 100.0
        assert [value(states, client, round_) for client in range(1, 5)] == [
            100.0 * round_ + client for client in range(1, 5)
        ]


def test_saved_versions_come_back_and_old_ones_go(states: ClientStates, tmp_path: Path) -> None:
    states.put(1, 4, vector(4.0))
    states.put(2, 4, vector(2.0))
    states.save(tmp_path, {1: 4, 2: 4})
    states.put(1, 6, vector(6.0))
    states.commit({1: 6, 2: 4})
    states.save(tmp_path, {1: 6, 2: 4})
    assert len(list(tmp_path.iterdir())) == 3  # the older checkpoint is still whole

    older = ClientStates(vector(0.0))
    older.restore(tmp_path, {1: 4, 2: 4})
    assert value(older, 1, 4) == 4.0

    states.prune(tmp_path, {1: 6, 2: 4})
    assert len(list(tmp_path.iterdir())) == 2
    newer = ClientStates(vector(0.0))
    newer.restore(tmp_path, {1: 6, 2: 4})
    assert (value(newer, 1, 6), value(newer, 2, 4)) == (6.0, 2.0)


def test_files_that_are_swapped_are_noticed(states: ClientStates, tmp_path: Path) -> None:
    states.put(1, 4, vector(4.0))
    states.put(2, 4, vector(2.0))
    states.save(tmp_path, {1: 4, 2: 4})
    first, second = sorted(tmp_path.iterdir())
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    with pytest.raises(BrokenRun, match="its client is 2, not 1"):
        ClientStates(vector(0.0)).restore(tmp_path, {1: 4, 2: 4})
