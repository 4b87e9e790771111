"""Runs test-quick against each mutation: does a test notice?"""

from __future__ import annotations

import queue
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tests.mutations.checkout import Copy, deselecting
from tests.mutations.mutation import Mutation

Verdict = Literal["noticed", "survived", "passes hints", "unclear"]


@dataclass(frozen=True)
class Finding:
    """What became of one mutation."""

    mutation: Mutation
    verdict: Verdict
    seconds: float
    by: str = ""
    """The test that noticed, or why it is unclear whether one did."""

    @property
    def is_fine(self) -> bool:
        """Noticed, or survived for a known reason."""
        return self.verdict == "noticed" or (self.verdict == "survived" and bool(self.mutation.explained))

    def line(self) -> str:
        """For the progress."""
        about = f"{self.mutation.name} ({self.mutation.breaks})"
        match self.verdict:
            case "noticed":
                return f"{about}: noticed in {self.seconds:.0f} s by {self.by}"
            case "survived":
                known = f"; explained: {self.mutation.explained}" if self.mutation.explained else ""
                return f"{about}: SURVIVED all of test-quick, {self.seconds:.0f} s{known}"
            case "passes hints":
                return f"{about}: not noticed by its first tests, {self.seconds:.0f} s"
            case "unclear":
                return f"{about}: UNCLEAR, {self.by}"


def try_out(mutation: Mutation, copy: Copy, *, hints_only: bool) -> Finding:
    """The first tests of a mutation, then the rest of test-quick, until one fails."""
    start = time.perf_counter()

    def found(verdict: Verdict, by: str = "") -> Finding:
        return Finding(mutation, verdict, time.perf_counter() - start, by)

    stages = [list(mutation.first)] if mutation.first else []
    if not hints_only:
        stages.append(deselecting(mutation.first))
    with copy.mutated(mutation):
        for arguments in stages:
            outcome = copy.test(*arguments)
            match outcome.code:
                case None:
                    return found("noticed", "a run that never ended")
                case 1 if outcome.failed and copy.test(outcome.failed[0]).code == 1:
                    return found("noticed", outcome.failed[0])
                case 1 if outcome.failed:
                    return found("unclear", f"{outcome.failed[0]} failed once and passed when it was run again")
                case 0 | 5:
                    continue
                case 4:
                    return found("unclear", f"pytest does not know one of its first tests: {', '.join(mutation.first)}")
                case code:
                    last = (outcome.output.strip().splitlines() or [""])[-1]
                    return found("unclear", f"pytest ended with status {code}: {last}")
    return found("passes hints" if hints_only else "survived")


def run(
    root: Path, mutations: Sequence[Mutation], *, jobs: int, hints_only: bool, report: Callable[[Finding], None]
) -> list[Finding]:
    """Findings in the order of the mutations; `report` gets each as it comes."""
    with tempfile.TemporaryDirectory(prefix="fedopt-mutations-") as room, ExitStack() as leaving:
        copies: queue.SimpleQueue[Copy] = queue.SimpleQueue()
        for number in range(jobs):
            folder = Path(room) / str(number) / "checkout"
            folder.mkdir(parents=True)
            copies.put(leaving.enter_context(closing(Copy(root, folder))))

        def one(mutation: Mutation) -> Finding:
            copy = copies.get()
            try:
                return try_out(mutation, copy, hints_only=hints_only)
            finally:
                copies.put(copy)

        found: dict[str, Finding] = {}
        with ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(one, mutation) for mutation in mutations]
            try:
                for future in as_completed(futures):
                    finding = future.result()
                    found[finding.mutation.name] = finding
                    report(finding)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return confirmed([found[mutation.name] for mutation in mutations], copies.get())


def confirmed(findings: Sequence[Finding], copy: Copy) -> list[Finding]:
    """The same, but unclear where the test that noticed fails without the mutation, too."""
    noticing = sorted({finding.by for finding in findings if finding.verdict == "noticed" and "::" in finding.by})
    if not noticing:
        return list(findings)
    outcome = copy.test(*noticing, stop_early=False)
    if outcome.code == 0:
        return list(findings)
    broken = set(outcome.failed) if outcome.code == 1 else set(noticing)
    return [
        replace(finding, verdict="unclear", by=f"{finding.by} does not pass without the mutation either")
        if finding.verdict == "noticed" and finding.by in broken
        else finding
        for finding in findings
    ]
