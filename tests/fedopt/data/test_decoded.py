"""The cache of decoded data: the same data set, faster, and never a stale or damaged one."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from fedopt.data import decoded
from fedopt.data.dataset import Dataset
from fedopt.data.fingerprint import fingerprint_data
from fedopt.data.loading import load_dataset
from fedopt.data.settings import DataSettings
from fedopt.errors import DataUnavailable

PARTS = {"train": 50, "t10k": 20}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDOPT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with a small data set in MNIST's format, as its authors describe it."""
    write_mnist(tmp_path / "data", seed=0)
    return tmp_path / "data"


def write_mnist(root: Path, seed: int) -> None:
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng(seed)
    for part, count in PARTS.items():
        images = draws.integers(0, 256, size=(count, 28, 28), dtype=np.uint8)
        labels = np.resize(np.arange(10, dtype=np.uint8), count)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 0x803, count, 28, 28) + images.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, count) + labels.tobytes())


def load(root: Path) -> Dataset:
    return load_dataset(DataSettings(name="mnist", path=str(root)), seed=0)


def without_cache(root: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    with monkeypatch.context() as patch:
        patch.setenv("FEDOPT_CACHE", "off")
        return fingerprint_data(load(root))


def test_a_second_reading_gives_the_same_data_without_torchvision(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = without_cache(root, monkeypatch)
    assert not cache.exists()
    assert fingerprint_data(load(root)) == plain
    assert [file.name.split("-")[0] for file in cache.iterdir()] == ["mnist"]
    code = (
        "import sys; from fedopt.data.settings import DataSettings; from fedopt.data.loading import load_dataset; "
        "from fedopt.data.fingerprint import fingerprint_data; "
        "found = load_dataset(DataSettings(name='mnist', path=sys.argv[1]), seed=0); "
        "print(fingerprint_data(found), found.class_names[0], 'torchvision' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{plain} 0 - zero False"


def test_changed_files_are_read_again_and_replace_their_entry(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fingerprint_data(load(root))
    write_mnist(root, seed=1)
    second = fingerprint_data(load(root))
    assert second == without_cache(root, monkeypatch) != first
    assert len(list(cache.iterdir())) == 1


def test_another_decoder_reads_again(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(root)
    (entry,) = cache.iterdir()
    before = entry.stat().st_mtime_ns
    monkeypatch.setattr("fedopt.data.sources.torchvision_sets.version", lambda package: "99")
    load(root)
    assert entry.stat().st_mtime_ns > before


@pytest.mark.parametrize("position", [0, 20, 0.5, -1])
def test_a_damaged_entry_is_written_again(
    root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, position: float
) -> None:
    load(root)
    (entry,) = cache.iterdir()
    content = bytearray(entry.read_bytes())
    content[int(len(content) * position) if position == 0.5 else int(position)] ^= 255
    entry.write_bytes(content)
    assert fingerprint_data(load(root)) == without_cache(root, monkeypatch)
    assert entry.read_bytes() != content


def test_a_torn_entry_is_written_again(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(root)
    (entry,) = cache.iterdir()
    entry.write_bytes(entry.read_bytes()[:-100])
    assert fingerprint_data(load(root)) == without_cache(root, monkeypatch)


def test_files_that_are_gone_are_not_served_from_the_cache(root: Path) -> None:
    load(root)
    (root / "MNIST" / "raw" / "train-images-idx3-ubyte").unlink()
    with pytest.raises(DataUnavailable, match="is not there"):
        load(root)


def test_a_cache_that_cannot_be_written_does_no_harm(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert len(load(root).y_train) == PARTS["train"]
    assert "the decoded data are not cached" in caplog.text


def test_drafts_of_killed_processes_are_removed(root: Path, cache: Path) -> None:
    load(root)
    (entry,) = cache.iterdir()
    entry.unlink()
    old, fresh = (cache / f".{entry.name}.{number}.draft" for number in (1, 2))
    for draft in (old, fresh):
        draft.write_bytes(b"")
    os.utime(old, (0, time.time() - 2 * decoded.DRAFT_SECONDS))
    load(root)
    assert sorted(file.name for file in cache.iterdir()) == sorted([entry.name, fresh.name])


def test_compressed_and_plain_files_are_different_files(root: Path, cache: Path) -> None:
    load(root)
    plain = root / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    with gzip.open(plain.with_suffix(".gz"), "wb") as stream:
        stream.write(plain.read_bytes())
    load(root)
    assert len(list(cache.iterdir())) == 2
