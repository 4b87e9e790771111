"""Half a cosine: Loshchilov, Hutter, "SGDR", ICLR 2017 (arXiv:1608.03983), without restarts."""

from __future__ import annotations

import math

from fedopt.schedules.curve import Bounded


class Cosine(Bounded):
    def falling(self, part: float) -> float:
        return (1 + math.cos(math.pi * part)) / 2
