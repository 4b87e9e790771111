"""Runs JavaScript in V8, the engine of Chromium, on machines without a browser."""

from __future__ import annotations

import subprocess
import sys

# In a process of its own: V8's threads do not survive a fork, and other tests fork.
RUN = """
import sys
from py_mini_racer import MiniRacer
with MiniRacer() as engine:
    print(engine.eval(sys.stdin.read()))
"""


def evaluated(source: str) -> str:
    """The string that is the value of the last statement."""
    done = subprocess.run([sys.executable, "-c", RUN], input=source, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.removesuffix("\n")
