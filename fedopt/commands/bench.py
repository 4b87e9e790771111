"""`fedopt bench`: speed as ratios, measured here and now."""

from __future__ import annotations

from fedopt.commands.lazy import Entry, lazy_group

app = lazy_group(
    "bench",
    {
        "engine": Entry("simulations.commands.bench:app", "Virtual clients against the plain training loop."),
        "scale": Entry("simulations.commands.bench_scale:app", "Time and memory as a federation grows."),
        "store": Entry("simulations.commands.bench_store:app", "What clients keep: in memory against on the disk."),
        "drift": Entry("simulations.commands.bench_drift:app", "What measuring client drift costs."),
        "federation": Entry("server.commands.bench:app", "Seconds a round of a deployed federation."),
    },
)


@app.callback()
def bench() -> None:
    """Measure what this machine makes of fedopt. Everything is compared within one run, by medians."""
