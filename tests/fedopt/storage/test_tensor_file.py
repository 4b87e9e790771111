"""Tensor files: what is read is what was written, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedopt.errors import BrokenRun
from fedopt.storage.tensor_file import read_tensors, write_tensors

TENSORS = {"x": torch.arange(6.0), "c": torch.ones(6, dtype=torch.float32)}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("tensors") / "a.safetensors"
    write_tensors(file, TENSORS, {"round": 3})
    return file


def test_comes_back_bit_for_bit_and_leaves_no_draft(written: Path) -> None:
    found = read_tensors(written, TENSORS, {"round": 3})
    assert all(found[name].equal(tensor) for name, tensor in TENSORS.items())
    assert [file.name for file in written.parent.iterdir()] == ["a.safetensors"]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_damage_is_recognised(written: Path, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    content = bytearray(written.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= data.draw(st.integers(1, 255))
    damaged = tmp_path_factory.mktemp("damaged") / "a.safetensors"
    damaged.write_bytes(bytes(content))
    try:
        found = read_tensors(damaged, TENSORS, {"round": 3})
    except BrokenRun as error:
        assert "a.safetensors" in str(error)
    else:  # a blank turned into another blank of the header changes nothing
        assert all(found[name].equal(tensor) for name, tensor in TENSORS.items())


@pytest.mark.parametrize(
    ("like", "about", "told"),
    [
        (TENSORS, {"round": 4}, "its round is 3, not 4"),
        ({"x": TENSORS["x"]}, {"round": 3}, r"holds \['c', 'x'\], expected \['x'\]"),
        ({**TENSORS, "c": torch.ones(5)}, {"round": 3}, r"c is torch.float32 \(6,\), expected torch.float32 \(5,\)"),
        ({**TENSORS, "c": torch.ones(6).double()}, {"round": 3}, "expected torch.float64"),
    ],
)
def test_another_file_than_expected_is_refused(
    written: Path, like: dict[str, torch.Tensor], about: dict[str, int], told: str
) -> None:
    with pytest.raises(BrokenRun, match=told):
        read_tensors(written, like, about)
