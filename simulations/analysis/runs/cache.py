"""Results of expensive parts of an analysis, kept in the run's directory: analysis/cache/.

    cache = Cache(directory, again, say)
    found = cache.part("sharpness", Sharpness, key, lambda: measure(...))

`part` returns what was computed before under the same kind and key, and says so by `say`, or computes and stores it;
with `again` it computes in any case. The result is of the type that is given, a dataclass of numbers, texts, lists and
dictionaries; floats come back with the same bits. The key is made of JSON's types and must name whatever the result
follows from. What every key needs is in `identity`: the data, the model's weights, and its loss there, which stands for
the code of a model or a loss of the user's own. fedopt's own code and the versions of torch and numpy are added here.

A file that is torn, edited, or of another key is reported and computed anew.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError

import fedopt
from fedopt.storage.files import replace_file
from fedopt.vectors.layout import fingerprint, state_of_module
from simulations.analysis import FOLDER
from simulations.analysis.runs.objective import Objective
from simulations.analysis.runs.of_run import AnalyzedRun
from simulations.analysis.runs.points import Point

CACHE = "cache"

OF_RESULTS = ("fedopt", "simulations/analysis")
"""The packages whose code a result follows from, beside the models that it is of."""

Found = TypeVar("Found")
Key = Mapping[str, object]


class Cache:
    """The cache of one run."""

    def __init__(self, directory: Path, again: bool, say: Callable[[str], None]) -> None:
        """`directory` is the run's; with `again` nothing is read."""
        self._folder, self._again, self._say = directory / FOLDER / CACHE, again, say

    def has(self, kind: str, key: Key) -> bool:
        """Whether `part` would read the result, if its file is whole: for estimates of time."""
        return not self._again and self._file(kind, key)[0].exists()

    def part(self, kind: str, type_: type[Found], key: Key, compute: Callable[[], Found]) -> Found:
        """The result of this kind and key, of the type, from the cache or computed."""
        adapter = TypeAdapter(type_)
        file, whole = self._file(kind, key)
        known = None if self._again else self._read(file, adapter, whole)
        if known is not None:
            self._say(f"from {file}; --again computes anew")
            return known
        found = compute()
        self._write(file, whole, adapter.dump_python(found))
        return found

    def _file(self, kind: str, key: Key) -> tuple[Path, Key]:
        """The file of a key, and the key with what is added to it."""
        whole: Key = json.loads(json.dumps({"kind": kind, "code": code_version(), **key}, sort_keys=True))
        return self._folder / f"{kind}-{_digest(whole)[:16]}.json", whole

    def _read(self, file: Path, adapter: TypeAdapter[Found], key: Key) -> Found | None:
        try:
            content = json.loads(file.read_bytes())
            if content["sha256"] != _digest([content["key"], content["result"]]) or content["key"] != key:
                raise ValueError("its checksum or its key is another")
            return adapter.validate_python(content["result"], strict=False)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError, ValidationError) as error:
            why = str(error).splitlines()[0]
            self._say(f"warning: {file} is damaged and is computed anew: {why}")
            return None

    def _write(self, file: Path, key: Key, result: object) -> None:
        content = {"key": key, "result": result, "sha256": _digest([key, json.loads(json.dumps(result))])}
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            replace_file(file, json.dumps(content).encode() + b"\n")
        except OSError as error:
            self._say(f"warning: the result is not kept for a next time: {file} cannot be written: {error.strerror}")


def identity(run: AnalyzedRun, point: Point, objective: Objective) -> dict[str, object]:
    """What every result at a point of a run follows from, for a key."""
    return {
        "data": run.setup.data_sha256,
        "model": fingerprint(state_of_module(point.module)),
        "samples": objective.samples,
        "loss": f"{objective.value(point.w):.9e}",
    }


@functools.cache
def code_version() -> str:
    """A hash of the code that results follow from, and of the versions of torch and numpy."""
    assert fedopt.__file__ is not None
    root = Path(fedopt.__file__).parent.parent
    found = hashlib.sha256(f"{torch.__version__} {np.__version__}".encode())
    for package in OF_RESULTS:
        for file in sorted((root / package).rglob("*.py")):
            found.update(f"\n{file.relative_to(root)}\n".encode() + file.read_bytes())
    return found.hexdigest()


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
