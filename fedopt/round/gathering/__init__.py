"""Gathering rules by name: how the server combines the updates of a round. A new one is a file here and a line."""

from fedopt.registry import Registry

GATHERINGS = Registry("gathering rule", {"mean": "fedopt.round.gathering.mean:Mean"})
