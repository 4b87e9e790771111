"""A model whose clients misbehave on request: a test writes the kind into the file that MOOD names.

PACE is a number of seconds to sleep at every minibatch.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from torch import Tensor, nn


class Moody(nn.Module):
    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(features, classes)

    def forward(self, samples: Tensor) -> Tensor:
        time.sleep(float(os.environ.get("PACE", "0")))
        self._follow(Path(os.environ.get("MOOD", "/nonexistent")))
        logits: Tensor = self.layer(samples.flatten(1))
        return logits

    def _follow(self, file: Path) -> None:
        if not file.exists():
            return
        match file.read_text():
            case "raise":
                raise RuntimeError("this client is in a mood")
            case "hang":
                time.sleep(3600)
            case "leave":
                sys.exit(3)
            case "die":
                os._exit(3)


def build(sample_shape: tuple[int, ...], classes: int) -> nn.Module:
    features = 1
    for side in sample_shape:
        features *= side
    return Moody(features, classes)
