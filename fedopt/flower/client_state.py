"""What a client keeps between rounds, in Flower's `Context.state`, with the promote-or-drop rule.

Each round leaves a version named by the round. The strategy says which round's update it used last: that version
counts, and a newer one, whose update never reached the model, is dropped.
"""

from __future__ import annotations

from flwr.app import Context
from torch import Tensor

from fedopt.errors import BrokenRun
from fedopt.flower.arrays import as_record, as_vectors
from fedopt.vectors.layout import Vectors

PREFIX = "fedopt-state-"
"""Names of the records; the number of the round follows."""


def read_state(context: Context, accepted: int | None, initial: Vectors, like: Tensor) -> Vectors:
    """The version of round `accepted`, [P] each; `initial` before the first accepted round.

    BrokenRun if it is gone: a node that was started again has lost what it kept in memory.
    """
    if accepted is None or not initial:
        return initial
    records = context.state.array_records
    if f"{PREFIX}{accepted}" not in records:
        raise BrokenRun(
            f"this node has no client state from round {accepted}, which the server has used; "
            "it was restarted since, and cannot take part in this run any more"
        )
    return as_vectors(records[f"{PREFIX}{accepted}"], like)


def write_state(context: Context, round_: int, accepted: int | None, state: Vectors) -> None:
    """Adds the version of this round, and drops all others but the accepted one."""
    kept = {f"{PREFIX}{number}" for number in (round_, accepted)}
    for name in [name for name in context.state.array_records if name.startswith(PREFIX) and name not in kept]:
        del context.state[name]
    if state:
        context.state[f"{PREFIX}{round_}"] = as_record(state)
