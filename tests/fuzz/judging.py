"""One index of the fuzz from draw to verdict."""

from __future__ import annotations

import tempfile
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fedopt.errors import FedoptError
from tests.fuzz.cases import Case, draw_case
from tests.fuzz.differential import Verdict, judge
from tests.fuzz.invariance import NO_PROMISE, variations, vary

ATTEMPTS = 30
"""How many cases are drawn for one index until one can be judged."""

NOT_JUDGED = ("refused", "diverged", "ill-conditioned")


@dataclass
class Result:
    """What came of one index; plain data, as it travels between processes."""

    name: str
    model: str = "?"
    optimizer: str = "?"
    algorithm: str = "?"
    dtype: str = "?"
    backend: str = "?"
    status: str = "crashed"
    deviation: float = 0.0
    """The largest difference, as a part of what is allowed, and `of` what."""
    of: str = ""
    weights: float = 0.0
    varied: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    passed_over: list[tuple[str, str]] = field(default_factory=list)
    """Why earlier attempts were not judged: the status and what was said."""

    @property
    def agrees(self) -> bool:
        return self.status == "agrees"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def settle(seed: int, index: int, *, processes: bool = False) -> Result:
    """Draws until a case can be judged, and judges it."""
    passed_over: list[tuple[str, str]] = []
    for attempt in range(ATTEMPTS):
        result = settle_case(draw_case(seed, index, attempt), processes=processes)
        if result.status not in NOT_JUDGED:
            result.passed_over = passed_over
            return result
        passed_over.append((result.status, "; ".join(result.complaints)[:200]))
    return Result(f"{seed}:{index}", complaints=[f"none of {ATTEMPTS} cases could be judged"], passed_over=passed_over)


def settle_case(case: Case, *, processes: bool = False) -> Result:
    """The differential comparison of one case and, where it agrees, its variations."""
    with tempfile.TemporaryDirectory(prefix="fedopt-fuzz-") as folder:
        verdict, varied = _verdict(case, Path(folder), processes=processes)
    return Result(
        case.name,
        case.model,
        case.optimizer,
        case.sections["algorithm"]["name"],
        case.sections["run"]["dtype"],
        verdict.backend,
        verdict.status,
        verdict.deviation,
        verdict.of,
        verdict.weights,
        varied,
        verdict.complaints,
    )


def _verdict(case: Case, folder: Path, *, processes: bool) -> tuple[Verdict, list[str]]:
    # The last guard around code under test: whatever it raises is the finding.
    try:
        verdict, history = judge(case, folder)
    except Exception as error:
        return Verdict("crashed", case.sections["run"]["backend"], complaints=[_told(error)]), []
    varied: list[str] = []
    if history is not None and verdict.backend not in NO_PROMISE:
        for name in variations(case, processes=processes):
            try:
                complaints = vary(name, case, history, folder)
            except Exception as error:
                complaints = [f"{name}: {_told(error)}"]
            varied.append(name)
            if complaints:
                verdict.complaints += complaints
                verdict.status = "disagrees"
    return verdict, varied


def _told(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename]
    place = f" at {Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""
    kind = "" if isinstance(error, FedoptError) else f"{type(error).__name__}: "
    return f"{kind}{' '.join(str(error).split())[:300]}{place}"
