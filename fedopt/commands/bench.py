"""`fedopt bench`: speed as ratios, measured on this machine."""

from __future__ import annotations

from fedopt.commands.lazy import Entry, lazy_group

app = lazy_group(
    "bench",
    {
        "engine": Entry("simulations.commands.bench:app", "Virtual clients against the plain training loop."),
        "scale": Entry("simulations.commands.bench_scale:app", "Time and memory as the federation grows."),
        "store": Entry("simulations.commands.bench_store:app", "Client states in memory against on disk."),
        "drift": Entry("simulations.commands.bench_drift:app", "The cost of measuring client drift."),
        "federation": Entry("server.commands.bench:app", "Seconds per round of a deployed federation."),
    },
)


@app.callback()
def bench() -> None:
    """Measure fedopt's speed on this machine. Both sides of a comparison run in turns; figures are medians."""
