"""SAGA: Defazio, Bach, Lacoste-Julien, "SAGA: A Fast Incremental Gradient Method With Support for Non-Strongly Convex
Composite Objectives", NeurIPS 2014 (arXiv:1407.0202). The table and its limits are those of sag: see there.
"""

from __future__ import annotations

from typing import ClassVar

from fedopt.optimizers.sag import Sag


class Saga(Sag):
    is_unbiased: ClassVar[bool] = True
