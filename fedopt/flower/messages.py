"""What travels between the strategy and `local_work`, beside the model and the config that any Flower App sends.

down   "arrays"   the model's state_dict, named as Flower's own strategies name it
       "config"   the app's own settings, with server-round
       "fedopt"   the order: round, client, the last accepted round, the algorithm with its settings, trained names
       "down"     what the algorithm sends down beside the model, one flat array [P] each
up     "up"       what the algorithm sends up, one flat array [P] each
       "buffers"  the model's buffers, if it has any
       "metrics"  num-examples, train_loss and the app's own numbers
       "numbers"  the algorithm's numbers
       "fedopt"   the round and the steps taken
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flwr.app import ConfigRecord, Message, RecordDict
from pydantic import ValidationError

from fedopt.algorithms import ALGORITHMS
from fedopt.algorithms.base import Algorithm
from fedopt.errors import InvalidExperiment
from fedopt.explain import explain
from fedopt.imports import place_of
from fedopt.registry import UnknownName

ORDER, DOWN, UP, BUFFERS, METRICS, NUMBERS = "fedopt", "down", "up", "buffers", "metrics", "numbers"
"""Names of records."""

HELLO = "hello"
"""The action of the query that asks a client for its samples, and the name of the record in its reply."""

SAMPLES, LOSS = "num-examples", "train_loss"
"""Names of metrics; the first is Flower's own."""


@dataclass(frozen=True)
class Order:
    """One client's order of one round."""

    round: int
    client: int
    """From 0: its place among the clients."""
    accepted: int | None
    """The last round whose update of this client the server aggregated; None before the first."""
    seed: int
    algorithm: str
    """JSON of the algorithm, with its name and its settings."""
    trained: tuple[str, ...]
    """Names of the parameters that the server counts as trained."""

    def record(self) -> ConfigRecord:
        return ConfigRecord(
            {
                "round": self.round,
                "client": self.client,
                "accepted": 0 if self.accepted is None else self.accepted,  # rounds count from 1
                "seed": self.seed,
                "algorithm": self.algorithm,
                "trained": list(self.trained),
            }
        )

    @classmethod
    def read(cls, message: Message) -> Order:
        """InvalidExperiment if the message does not come from one of fedopt's strategies."""
        records = message.content.config_records if message.has_content() else RecordDict().config_records
        if ORDER not in records:
            raise InvalidExperiment(
                "this message brings no order of a fedopt strategy; start a strategy of fedopt.flower in the ServerApp"
            )
        fields = records[ORDER]
        try:
            round_, client, accepted, seed = (_whole(fields, key) for key in ("round", "client", "accepted", "seed"))
            algorithm, trained = fields["algorithm"], fields["trained"]
        except KeyError as error:
            raise InvalidExperiment(f"the strategy's order lacks {error}; use the same fedopt on both sides") from error
        if not isinstance(algorithm, str) or not isinstance(trained, list):
            raise InvalidExperiment("the strategy's order cannot be read; use the same fedopt on both sides")
        names = tuple(str(name) for name in trained)
        return cls(round_, client, accepted or None, seed, algorithm, names)


def _whole(fields: ConfigRecord, key: str) -> int:
    value = fields[key]
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidExperiment(f"the strategy's order has {key} = {value!r}; use the same fedopt on both sides")
    return value


def read_algorithm(text: str, own: Sequence[type[Algorithm]]) -> Algorithm:
    """The algorithm of an order. `own` are the app's own classes; no other code from outside is imported."""
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise InvalidExperiment("the strategy's algorithm cannot be read; use the same fedopt on both sides") from error
    name = str(settings.get("name", "")) if isinstance(settings, dict) else ""
    known: Mapping[str, type[Algorithm]] = {place_of(kind): kind for kind in own}
    if name in known:
        del settings["name"]  # the class is here already: nothing is imported by its name
        kind: type[Algorithm] = known[name]
    elif ":" in name:
        raise InvalidExperiment(
            f"the strategy runs {name}; give its class to the client, too: "
            f"local_work(..., algorithms=[{name.rpartition(':')[2]}])"
        )
    else:
        try:
            kind = ALGORITHMS.resolve(name)
        except UnknownName as error:
            raise InvalidExperiment(f"the strategy's algorithm: {error}") from error
    try:
        return kind.model_validate_json(json.dumps(settings))
    except ValidationError as error:
        raise InvalidExperiment(explain(error)) from error
