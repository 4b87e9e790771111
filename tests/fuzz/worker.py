"""A process that judges the cases whose numbers it reads, one a line: {"index": 3} in, a result out."""

from __future__ import annotations

import json
import os
import sys

from tests.fuzz.judging import settle


def main() -> None:
    # What the code under test prints must not be taken for a result.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        order = json.loads(line)
        result = settle(order["seed"], order["index"], processes=order["processes"])
        answers.write(json.dumps(result.as_dict()) + "\n")


if __name__ == "__main__":
    main()
