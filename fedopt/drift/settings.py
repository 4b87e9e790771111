"""The experiment's [metrics] section: what is measured beside loss and accuracy, and how often."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedopt.section import Section


class MetricSettings(Section):
    drift: Literal["layers", "model", "off"] = "layers"
    """Measures of the updates in every round: of the model and its layers, of the model alone, or none."""
    drift_every: int = Field(10, ge=0)
    """Rounds between full gradients at the round's model, a pass over its clients' data; 0 is never."""
    clients_every: int = Field(10, ge=0)
    """Rounds between evaluations on each client's own test share; 0 is never."""
    divergence: bool = False
    """Whether a centralised run goes along that sees as many samples; it costs as much as the clients' work."""

    def wants_gradients(self, round_: int, rounds: int) -> bool:
        return _is_due(round_, rounds, self.drift_every)

    def wants_clients(self, round_: int, rounds: int) -> bool:
        return _is_due(round_, rounds, self.clients_every)


def _is_due(round_: int, rounds: int, every: int) -> bool:
    """The first round, every so many, and the last."""
    return every > 0 and (round_ % every == 0 or round_ in (1, rounds))
