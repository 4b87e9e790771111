"""Gathering rules by name: how the server combines the updates of a round. A new one is a file here and a line."""

from fedopt.registry import Entry, Registry

GATHERINGS = Registry(
    "gathering rule",
    {
        "mean": Entry(
            "fedopt.round.gathering.mean:Mean",
            "the weighted mean, streaming and exact in any order of arrival",
        ),
    },
    base="fedopt.round.gathering.base:Gathering",
    plugins="gathering",
)
