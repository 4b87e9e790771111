"""The experiment's [metrics] section: what is measured besides loss and accuracy, and how often."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedopt.section import Section


class MetricSettings(Section):
    drift: Literal["layers", "model", "off"] = "layers"
    """Measures of the updates in every round: for the model and each layer, for the model only, or none."""
    drift_every: int = Field(10, ge=0)
    """Rounds between full gradients at the round's model, each a pass over the clients' data; 0 means never."""
    clients_every: int = Field(10, ge=0)
    """Rounds between evaluations on each client's own test share; 0 means never."""
    divergence: bool = False
    """Whether to train a centralized model on as many samples beside the run; it costs as much as the clients' work."""

    def wants_gradients(self, round_: int, rounds: int) -> bool:
        return _is_due(round_, rounds, self.drift_every)

    def wants_clients(self, round_: int, rounds: int) -> bool:
        return _is_due(round_, rounds, self.clients_every)


def _is_due(round_: int, rounds: int, every: int) -> bool:
    """Whether the round is the first, the last or a multiple of `every`."""
    return every > 0 and (round_ % every == 0 or round_ in (1, rounds))
