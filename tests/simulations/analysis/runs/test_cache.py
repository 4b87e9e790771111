"""What an analysis has computed is computed once, and a damaged file is never believed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import fedopt
from simulations.analysis.runs import cache
from simulations.analysis.runs.cache import Cache, identity
from simulations.analysis.runs.of_run import AnalyzedRun
from simulations.analysis.runs.points import Points


@dataclass(frozen=True)
class Measured:
    values: list[float]
    by_name: dict[str, list[list[float]]]
    error: float
    scale: float | None
    count: int


RESULT = Measured([0.1, 1e-300, -0.0, 1 / 3], {"a": [[math.pi], []]}, math.nan, None, 3)


class Counted:
    """Computes the result, and counts how often."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> Measured:
        self.times += 1
        return RESULT


@pytest.fixture
def said() -> list[str]:
    return []


def part(folder: Path, said: list[str], compute: Callable[[], Measured], again: bool = False, rho: float = 0.1) -> str:
    found = Cache(folder, again, said.append).part("measure", Measured, {"rho": rho, "of": ["x", 1]}, compute)
    return repr(found)


def test_the_second_call_reads_the_same_bits_and_says_from_where(tmp_path: Path, said: list[str]) -> None:
    compute = Counted()
    assert part(tmp_path, said, compute) == repr(RESULT)
    assert said == []
    assert part(tmp_path, said, compute) == repr(RESULT), "nan, -0.0 and the last digit included"
    (file,) = (tmp_path / "analysis" / "cache").iterdir()
    key = {"rho": 0.1, "of": ["x", 1]}
    assert Cache(tmp_path, False, said.append).has("measure", key)
    assert not Cache(tmp_path, True, said.append).has("measure", key)
    assert not Cache(tmp_path, False, said.append).has("measure", {**key, "rho": 0.3})
    assert said == [f"from {file}; --again computes anew"]
    assert compute.times == 1
    part(tmp_path, said, compute, again=True)
    part(tmp_path, said, compute, rho=0.2)
    assert compute.times == 3
    assert len(list(file.parent.iterdir())) == 2


def test_other_code_computes_anew(tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    compute = Counted()
    part(tmp_path, said, compute)
    monkeypatch.setattr(cache, "code_version", lambda: "of another day")
    part(tmp_path, said, compute)
    assert compute.times == 2
    assert said == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: b"[]",
        lambda content: content.replace(b"1e-300", b"2e-300"),
        lambda content: content.replace(b'"rho": 0.1', b'"rho": 0.3'),
        lambda content: _sealed(content, lambda found: found["result"].pop("error")),
        lambda content: _sealed(content, lambda found: found["key"].update(rho=0.7)),
        lambda content: b"\xff\xfe",
    ],
)
def test_a_damaged_file_is_computed_anew_with_a_warning(
    damage: Callable[[bytes], bytes], tmp_path: Path, said: list[str]
) -> None:
    compute = Counted()
    part(tmp_path, said, compute)
    (file,) = (tmp_path / "analysis" / "cache").iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert part(tmp_path, said, compute) == repr(RESULT)
    assert compute.times == 2
    assert len(said) == 1
    assert said[0].startswith(f"warning: {file} is damaged and is computed anew: ")
    assert "\n" not in said[0]
    assert file.read_bytes() == whole


def _sealed(content: bytes, change: Callable[[dict[str, dict[str, object]]], object]) -> bytes:
    """Changed together with its checksum."""
    found = json.loads(content)
    change(found)
    found["sha256"] = cache._digest([found["key"], found["result"]])
    return json.dumps(found).encode()


def test_where_nothing_can_be_written_the_result_is_there_all_the_same(tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "analysis").write_text("a file in the way")
    assert part(tmp_path, said, Counted()) == repr(RESULT)
    assert len(said) == 2, "it cannot be read either"
    assert said[-1].startswith("warning: the result is not kept for a next time: ")


def test_a_point_is_known_by_its_weights_its_data_and_its_loss(tmp_path: Path) -> None:
    runs = {
        name: fedopt.run(
            fedopt.Experiment(model={"name": "logistic"}, run={"rounds": 1, "seed": seed, "keep_models": 1}),
            tmp_path / name,
        )
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    }
    found = {}
    for name in runs:
        run = AnalyzedRun.read(tmp_path / name)
        points = Points(run)
        for at in ("initial", "final"):
            found[name, at] = identity(run, points.at(at), run.objective(100, 0, at=points.at(at).module))
    assert found["a", "final"] == found["b", "final"]
    assert found["a", "final"]["data"] == found["c", "final"]["data"]
    for key in ("model", "loss"):
        assert len({str(one[key]) for one in found.values()}) == 4, "two models of two seeds"
