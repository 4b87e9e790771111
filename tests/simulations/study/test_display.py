"""What a study's bar says."""

from __future__ import annotations

import pytest

from simulations.study.display import Count


def counted(failures: list[str | None], failed_before: int = 0, runs: int = 9) -> Count:
    count = Count(0, 10 * runs, failed_before, runs, failed_before)
    for failure in failures:
        count.run_done(failure)
    return count


@pytest.mark.parametrize(
    ("count", "says"),
    [
        (counted([None] * 9), "9 of 9 runs are done"),
        (counted([None] * 6 + ["no memory"] * 3), "6 of 9 runs are done, 3 failed"),
        (counted([None] * 7, failed_before=2), "7 of 9 runs are done, 2 failed"),
        (counted(["no memory"], runs=1), "0 of 1 run is done, 1 failed"),
    ],
)
def test_runs_that_failed_are_not_called_done(count: Count, says: str) -> None:
    assert count.outcome == says


def test_the_bar_counts_failures_while_the_study_runs() -> None:
    assert counted([None, "no memory"]).text == "2/9 runs, 1 failed, time left unknown"
    assert counted([None, None]).text == "2/9 runs, time left unknown"
