"""NumPy's .npy format, read as a stranger's."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedopt.storage.npy import NotThatArray, read_npy
from fedopt.text import plain


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("array", [np.arange(5.0), np.ones((2, 3), np.float32), np.array(1.5), np.zeros(0)])
def test_what_numpy_writes_is_read(array: np.ndarray, version: tuple[int, int]) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=version)
    found = read_npy(buffer.getvalue(), array.dtype, array.shape)
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)
    assert not found.flags.writeable


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_that_array_or_not(data: bytes, after_magic: bool) -> None:
    with pytest.raises(NotThatArray):
        read_npy((b"\x93NUMPY\x01\x00" if after_magic else b"") + data, np.dtype("f8"), (3,))


@given(st.text())
def test_plain_text_is_short_and_printable(text: str) -> None:
    assert plain(text).isprintable()
    assert len(plain(text)) <= 500
    if text.isprintable() and len(text) <= 500:
        assert plain(text) == text


def test_plain_text_is_cut() -> None:
    assert plain("\x1b[31m") == r"\x1b[31m"
    assert plain("x" * 501) == "x" * 499 + "…"
    assert plain("[/a]\n", 5) == r"[/a]…"
