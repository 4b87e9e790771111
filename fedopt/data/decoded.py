"""A cache of decoded data sets in the user's cache folder: reading one again needs neither torchvision nor its decoder.

An entry holds the images and labels as they were read, with the sizes and times of the files that they came from. Where
one of these has changed, or the entry is damaged, the files are read again. FEDOPT_CACHE names another folder; `off`
turns the cache off.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs
import safetensors
import safetensors.torch
from torch import Tensor

from fedopt.data.dataset import Dataset
from fedopt.vectors.layout import fingerprint

VERSION = "1"
"""Part of each entry; another one makes an older fedopt's entries stale."""

DRAFT_SECONDS = 3600
"""A draft that is older than this was left by a process that was killed."""

TENSORS = ("x_train", "y_train", "x_test", "y_test")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decoded:
    """What the cache has to know of a data set."""

    title: str
    """Its name, for people who look into the folder."""
    settings: str
    """The source's settings that decide over the result."""
    decoder: str
    """The library that decodes it, with its version."""
    files: tuple[Path, ...]
    """The files that it is read from, as far as they are there."""

    @property
    def stamps(self) -> str:
        """Path, size and time of each file; FileNotFoundError if one is gone."""
        found = ((str(file), file.stat()) for file in self.files)
        return json.dumps([VERSION, self.decoder, [(name, stat.st_size, stat.st_mtime_ns) for name, stat in found]])

    @property
    def entry(self) -> str:
        """The entry's file name: one for each data set and place, so that changed files replace their old entry."""
        where = json.dumps([self.title, self.settings, [str(file) for file in self.files]])
        return f"{self.title}-{hashlib.sha256(where.encode()).hexdigest()[:16]}.safetensors"


def files_below(folder: Path) -> tuple[Path, ...]:
    """All files below the folder, in a fixed order; empty where there is no such folder."""
    return tuple(sorted(path for path in folder.rglob("*") if path.is_file()))


def cached(source: Callable[[], Decoded], read: Callable[[], Dataset]) -> Dataset:
    """The data set from the cache, or from `read`, whose result is then stored.

    `source` is asked before and after `read`, because `read` may download the files.
    """
    folder = cache_folder()
    if folder is None:
        return read()
    before = source()
    if before.files:
        found = _load(folder / before.entry, before.stamps)
        if found is not None:
            return found
    dataset = read()
    after = source()
    # Files that changed during the reading may have been read in part.
    if after.files and (not before.files or before.stamps == after.stamps):
        _store(folder / after.entry, after.stamps, dataset)
    return dataset


def cache_folder() -> Path | None:
    """The folder for decoded data; None if the cache is off."""
    chosen = os.environ.get("FEDOPT_CACHE", "")
    if chosen.lower() == "off":
        return None
    return (Path(chosen) if chosen else platformdirs.user_cache_path("fedopt")) / "data"


def _load(file: Path, stamps: str) -> Dataset | None:
    """The entry as it was stored; None if there is none for these files, or if it is damaged."""
    try:
        with safetensors.safe_open(file, framework="pt") as content:
            metadata = content.metadata() or {}
            if metadata.get("stamps") != stamps:
                return None
            tensors: dict[str, Tensor] = {name: content.get_tensor(name) for name in TENSORS}
    except FileNotFoundError:
        return None
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError) as error:
        log.warning("%s is damaged and is written again: %s", file, error)
        return None
    if metadata.get("sha256") != fingerprint(tensors):
        log.warning("%s was changed after it was written and is written again", file)
        return None
    names = tuple(json.loads(metadata["classes"]))
    x_train, y_train, x_test, y_test = (tensors[name] for name in TENSORS)
    return Dataset(x_train, y_train, x_test, y_test, classes=len(names), class_names=names)


def _store(file: Path, stamps: str, dataset: Dataset) -> None:
    """Writes the entry atomically. A cache that cannot be written costs time, not the run."""
    tensors = {name: getattr(dataset, name).contiguous() for name in TENSORS}
    metadata = {"stamps": stamps, "classes": json.dumps(dataset.class_names), "sha256": fingerprint(tensors)}
    draft = file.with_name(f".{file.name}.{os.getpid()}.draft")  # ranks may write at the same time
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _remove_old(file.parent.glob(f".{file.name}.*.draft"))
        safetensors.torch.save_file(tensors, draft, metadata)
        os.replace(draft, file)
    except (OSError, safetensors.SafetensorError) as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        log.warning("the decoded data are not cached: %s", error)


def _remove_old(drafts: Iterable[Path]) -> None:
    for draft in drafts:
        with suppress(OSError):
            if time.time() - draft.stat().st_mtime > DRAFT_SECONDS:
                draft.unlink()
