"""Which clients take part in a round, and how many of their updates it needs."""

from __future__ import annotations

from dataclasses import dataclass

from fedopt.seeding import Purpose, stream


@dataclass(frozen=True)
class Terms:
    """How many clients a round involves."""

    asked: int
    """Clients that are selected and get an order."""
    enough: int
    """With this many updates the round is complete, and the work that is still under way is canceled."""
    least: int
    """With fewer updates the round does not count."""

    @classmethod
    def all_of(cls, cohort: int) -> Terms:
        """Every selected client counts."""
        return cls(cohort, cohort, cohort)


def select_cohort(clients: int, size: int, seed: int, round_: int) -> list[int]:
    """`size` of the clients without replacement, in rising order; a pure function of seed and round."""
    drawn = stream(seed, Purpose.COHORT, round_).choice(clients, size=size, replace=False)
    return sorted(int(client) for client in drawn)
