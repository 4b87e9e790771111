"""`make test-mutations`: a line for each mutation, then those that no test notices."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tests.mutations.mutation import matching, moved, read_mutations
from tests.mutations.runner import Finding, run

ROOT = Path(__file__).parents[2]


def main(arguments: list[str] | None = None) -> int:
    """0 if every mutation is noticed or explained, 1 if not, 2 if nothing could be run."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("--only", metavar="PATTERN", help="a regular expression for names or files of mutations")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="mutations side by side")
    parser.add_argument("--hints-only", action="store_true", help="run the first tests of each mutation alone")
    chosen = parser.parse_args(arguments)
    mutations = matching(read_mutations(), chosen.only)
    if not mutations:
        print(f"no mutation has {chosen.only!r} in its name or file", file=sys.stderr)
        return 2
    stale = moved(mutations, ROOT)
    if stale:
        print("\n".join(stale), file=sys.stderr)
        return 2

    done = 0

    def report(finding: Finding) -> None:
        nonlocal done
        done += 1
        print(f"[{done:{len(str(len(mutations)))}}/{len(mutations)}] {finding.line()}", flush=True)

    findings = run(ROOT, mutations, jobs=max(1, chosen.jobs), hints_only=chosen.hints_only, report=report)
    noticed = sum(finding.verdict == "noticed" for finding in findings)
    print(f"\n{noticed} of {len(findings)} mutations are noticed")
    for finding in findings:
        if finding.verdict != "noticed":
            print(f"  {finding.line()}")
        elif finding.mutation.explained:
            print(f"  {finding.mutation.name} is noticed; its explanation is wrong and can go")
    return 0 if all(finding.is_fine for finding in findings) else 1


if __name__ == "__main__":
    sys.exit(main())
