"""`make fuzz N=300 SEED=0`, or `python -m tests.fuzz`: random experiments against the reference.

python -m tests.fuzz --cases 300 --seed 0            # ends with 1 if a case disagrees
python -m tests.fuzz --case 0:17:2                   # one case again, in this process, told in full
python -m tests.fuzz --case 0:17:2 --shrink          # and the smallest experiment that still disagrees
python -m tests.fuzz --case 0:17:2 --write DIR       # as DIR/experiment.toml, for `fedopt run`
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from fedopt.experiment.file import as_sections
from tests.fuzz.cases import Case, draw_case
from tests.fuzz.judging import Result, settle_case
from tests.fuzz.pool import judge_all
from tests.fuzz.shrinking import shrink


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description="Random experiments against the reference."
    )
    parser.add_argument("--cases", type=int, default=300, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, metavar="INDEX", help="the first of the N indices")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes that judge")
    parser.add_argument("--no-processes", action="store_true", help="leave out torchrun and deployed federations")
    parser.add_argument("--case", metavar="SEED:INDEX:ATTEMPT", help="this one alone")
    parser.add_argument("--shrink", action="store_true", help="find the smallest experiment that still disagrees")
    parser.add_argument("--write", type=Path, metavar="DIR", help="write the case as an experiment and its data")
    chosen = parser.parse_args()
    if chosen.case:
        return _one(draw_case(*map(int, chosen.case.split(":"))), shrinks=chosen.shrink, folder=chosen.write)
    return _many(chosen.seed, chosen.first, chosen.cases, chosen.workers, processes=not chosen.no_processes)


def _one(case: Case, *, shrinks: bool, folder: Path | None) -> int:
    result = settle_case(case, processes=True)
    if shrinks and not result.agrees:
        case, result = shrink(case, result)
    _print_case(case)
    print(f"backend {result.backend}; {result.status}; weights {result.weights:.3g} of the update apart")
    print(f"largest deviation: {result.deviation:.3g} of what is allowed, of {result.of or 'nothing'}")
    print(f"varied: {', '.join(result.varied) or 'nothing'}")
    for complaint in result.complaints:
        print(f"  {complaint}")
    if folder is not None:
        _write(case, folder)
    return 0 if result.agrees else 1


def _print_case(case: Case) -> None:
    for section, keys in case.sections.items():
        print(f"[{section}] " + ", ".join(f"{key} = {value!r}" for key, value in keys.items()))
    if case.arrays is not None:
        print(f"x_train {case.arrays.x_train.dtype} {case.arrays.x_train.shape}, {case.arrays.classes} classes")


def _write(case: Case, folder: Path) -> None:
    import tomli_w

    folder.mkdir(parents=True, exist_ok=True)
    experiment = case.experiment(folder.absolute())
    (folder / "experiment.toml").write_text(tomli_w.dumps(as_sections(experiment)))
    print(f"fedopt run {folder / 'experiment.toml'}   # in the root of the repository")


def _many(seed: int, first: int, count: int, workers: int, *, processes: bool) -> int:
    start = time.monotonic()
    results: list[Result] = []
    for result in judge_all(seed, first, count, workers, processes=processes):
        results.append(result)
        if not result.agrees:
            print(_line(result), flush=True)
        if len(results) % 20 == 0 or len(results) == count:
            failed = sum(not own.agrees for own in results)
            print(f"{len(results)} of {count}, {failed} disagree, {time.monotonic() - start:.0f} s", flush=True)
    _summarise(results)
    failures = [result for result in results if not result.agrees]
    print(f"\n{len(results) - len(failures)} of {len(results)} agree, seed {seed}, {time.monotonic() - start:.0f} s")
    for result in sorted(failures, key=lambda own: own.model):
        print(f"python -m tests.fuzz --case {result.name}   # {result.model}, {result.backend}, {result.optimizer}")
    return 1 if failures else 0


def _line(result: Result) -> str:
    head = f"{result.name} {result.status}: {result.model}, {result.backend}, {result.optimizer}, {result.algorithm}"
    return "\n    ".join([f"{head}, {result.dtype}", *(complaint[:400] for complaint in result.complaints[:3])])


def _summarise(results: Sequence[Result]) -> None:
    _table("backend", results, lambda result: result.backend)
    _table("optimizer", results, lambda result: result.optimizer)
    _table("algorithm", results, lambda result: f"{result.algorithm}, {result.dtype}")
    _table("model", results, lambda result: result.model)
    print("\nvariations: " + _counts(name for result in results for name in result.varied))
    print("not judged: " + _counts(status for result in results for status, _ in result.passed_over))
    sayings = Counter(said.partition(":")[0] for result in results for _, said in result.passed_over if said)
    print("refusals speak of: " + ", ".join(f"{key} ({times})" for key, times in sayings.most_common(6)))


def _counts(names: Iterable[str]) -> str:
    return ", ".join(f"{name} {times}" for name, times in sorted(Counter(names).items())) or "none"


def _table(title: str, results: Sequence[Result], key: Callable[[Result], str]) -> None:
    print(f"\n{title:<28}{'agree':>8}{'of':>6}{'worst weights, float64':>26}{'worst part of allowed':>24}")
    for name in sorted({key(result) for result in results}):
        own = [result for result in results if key(result) == name]
        good = [result for result in own if result.agrees]
        doubles = [result.weights for result in good if result.dtype == "float64"]
        weights = f"{max(doubles):.1e}" if doubles else "-"
        part = f"{max(result.deviation for result in good):.1e}" if good else "-"
        print(f"{name:<28}{len(good):>8}{len(own):>6}{weights:>26}{part:>24}")


if __name__ == "__main__":
    sys.exit(main())
