"""The messages between a server and a deployed client, independent of how they are transported.

    hello      server to client: the experiment, and the shape of the samples; no weights
    greeting   client to server: its number and its number of samples, or why it cannot take part
    order      server to client: one round's work, with x and the vectors that the algorithm sends down
    update     client to server: the numbers and vectors of that work
    evaluate   server to client: a model x to evaluate on the client's own test share
    score      client to server: loss and accuracy there
    farewell   server to client: the run is over, or the server refuses this client

Each is a flat table of plain values (Fields); orders, updates and models carry vectors beside it. Nothing that arrives
is trusted: Malformed says in a clause what is wrong.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from fedopt.experiment.experiment import Experiment
from fedopt.experiment.file import as_sections
from fedopt.round.federation import Broadcast, Numbers, Score, Update, WorkOrder
from fedopt.schedules.plan import RateFactors
from fedopt.text import plain
from fedopt.vectors.layout import Vectors
from fedopt.wire_arrays import MOST_AXES, Arrays, shown, vectors_in
from fedopt.wire_arrays import Malformed as Malformed

PROTOCOL = 5
HELLO, FAREWELL, TRAIN, EVALUATE = "query.hello", "query.farewell", "train", "evaluate"
"""Types of messages."""

NUMBER, DOWN = "number.", "down."
"""Prefixes of names: of the algorithm's own numbers in an update, of vectors that travel beside the model."""

Value = int | float | str | bytes | bool | list[int] | list[float] | list[str] | list[bytes] | list[bool]
Fields = Mapping[str, Value]

OWN = {"data": {"path", "test", "download"}, "model": {"weights"}, "run": {"device", "threads", "lanes", "workers"}}
"""Keys that belong to each machine. They are not sent, are dropped if they arrive, and may be set by a client."""

MOST_TEXT, MOST_NAMES = 2**16, 2**16
"""Limits of a hello: characters of its experiment, and class names."""

LONGEST_NAME, LARGEST_SAMPLE = 200, 2**22
"""Limits of a hello: characters of a class name; numbers of a sample."""


@dataclass(frozen=True)
class Hello:
    federation: str
    """The id of this run. A client stores its state under this id."""
    experiment: str
    """The experiment as JSON, without the keys of OWN."""
    sample_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    numbers: bool = False
    """Whether targets are numbers to predict, of which `class_names` are the names."""

    @classmethod
    def of(
        cls,
        federation: str,
        experiment: Experiment,
        sample_shape: Sequence[int],
        names: Sequence[str],
        numbers: bool = False,
    ) -> Hello:
        sections = {
            section: {key: value for key, value in keys.items() if key not in OWN.get(section, ())}
            for section, keys in as_sections(experiment).items()
        }
        return cls(federation, json.dumps(sections, sort_keys=True), tuple(sample_shape), tuple(names), numbers)

    def fields(self) -> dict[str, Value]:
        return {
            "protocol": PROTOCOL,
            "federation": self.federation,
            "experiment": self.experiment,
            "sample_shape": list(self.sample_shape),
            "class_names": list(self.class_names),
            "numbers": self.numbers,
        }

    @classmethod
    def read(cls, fields: Fields) -> Hello:
        protocol = _take(fields, "protocol", int)
        if protocol != PROTOCOL:
            raise Malformed(f"the server speaks protocol {protocol}, this client {PROTOCOL}; use the same fedopt")
        hello = cls(
            _take(fields, "federation", str),
            _take(fields, "experiment", str),
            tuple(_take_list(fields, "sample_shape", int)),
            tuple(_take_list(fields, "class_names", str)),
            _take(fields, "numbers", bool),
        )
        hello._check_bounds()
        return hello

    def _check_bounds(self) -> None:
        """Checks sizes before anything is built: Malformed if one is out of range."""
        if not re.fullmatch(r"[0-9a-z]{1,64}", self.federation):  # it names a folder of the client's state
            raise Malformed("the federation's name is not one")
        if len(self.experiment) > MOST_TEXT:
            raise Malformed(f"the experiment has {len(self.experiment)} characters, more than {MOST_TEXT}")
        if not 1 <= len(self.class_names) <= MOST_NAMES or any(len(name) > LONGEST_NAME for name in self.class_names):
            raise Malformed(f"it has {len(self.class_names)} class names, or too long ones")
        shape = self.sample_shape
        if not 1 <= len(shape) <= MOST_AXES or min(shape) < 1 or math.prod(shape) > LARGEST_SAMPLE:
            raise Malformed("its samples have a shape that is out of range")

    def sections(self) -> dict[str, dict[str, Any]]:
        """The experiment's sections, without the keys of OWN."""
        try:
            sections = json.loads(self.experiment)
        except (ValueError, RecursionError) as error:  # numbers of thousands of digits raise no JSONDecodeError
            raise Malformed("the experiment is not JSON") from error
        if not isinstance(sections, dict) or not all(isinstance(keys, dict) for keys in sections.values()):
            raise Malformed("the experiment is not a table of sections")
        return {
            section: {key: value for key, value in keys.items() if key not in OWN.get(section, ())}
            for section, keys in sections.items()
        }


@dataclass(frozen=True)
class Greeting:
    client: int
    samples: int
    """0 if the client cannot take part."""
    refusal: str = ""
    """The reason then."""

    def fields(self) -> dict[str, Value]:
        return {"client": self.client, "samples": self.samples, "refusal": self.refusal}

    @classmethod
    def read(cls, fields: Fields) -> Greeting:
        greeting = cls(_take(fields, "client", int), _take(fields, "samples", int), _take(fields, "refusal", str))
        if greeting.samples < 1 and not greeting.refusal:
            raise Malformed(f"it reports {greeting.samples} samples")
        return greeting


@dataclass(frozen=True)
class Farewell:
    reason: str
    failed: bool
    """Whether the client was refused, and must exit with an error."""

    def fields(self) -> dict[str, Value]:
        return {"reason": self.reason, "failed": self.failed}

    @classmethod
    def read(cls, fields: Fields) -> Farewell:
        return cls(_take(fields, "reason", str), _take(fields, "failed", bool))


NEVER = 0
"""Encodes None as a round: rounds count from 1."""


@dataclass(frozen=True)
class Order:
    """A work order with the round's broadcast."""

    broadcast: Broadcast
    work: WorkOrder
    saved: int | None
    """The last round of this client's in the server's checkpoint: a server that is restarted asks for that state."""

    def fields(self) -> dict[str, Value]:
        return {
            "round": self.broadcast.round,
            "client": self.work.client,
            "accepted": self.work.accepted or NEVER,
            "saved": self.saved or NEVER,
            "gradient": self.broadcast.gradient,
            "survey": self.broadcast.survey,
            "factors": [self.broadcast.factors.local, self.broadcast.factors.server],
        }

    @property
    def vectors(self) -> dict[str, Tensor]:
        down = self.broadcast.down
        return {"x": self.broadcast.x, **{f"{DOWN}{name}": vector for name, vector in down.items()}}

    @classmethod
    def read(cls, fields: Fields, arrays: Arrays, like: Tensor) -> Order:
        """`like` is a vector [P] of the model's, for its dtype, length and device."""
        vectors = vectors_in(arrays, like)
        if "x" not in vectors:
            raise Malformed("the order brings no model")
        broadcast = Broadcast(
            round=_take(fields, "round", int),
            x=vectors.pop("x"),
            down={name.removeprefix(DOWN): vector for name, vector in vectors.items()},
            gradient=_take(fields, "gradient", bool),
            survey=_take(fields, "survey", bool),
            factors=_take_factors(fields),
        )
        accepted, saved = _take(fields, "accepted", int), _take(fields, "saved", int)
        if broadcast.round < 1 or accepted < NEVER or saved < NEVER:
            raise Malformed(
                f"the order is for round {broadcast.round}, after {accepted} and {saved}; rounds count from 1"
            )
        return cls(broadcast, WorkOrder(_take(fields, "client", int), accepted or None), saved or None)


def update_fields(round_: int, client: int, numbers: Numbers) -> dict[str, Value]:
    return {
        "round": round_,
        "client": client,
        "samples": numbers.samples,
        "steps": numbers.steps,
        "loss": numbers.loss,
        **{f"{NUMBER}{name}": number for name, number in numbers.own.items()},
    }


def read_update(fields: Fields, up: Vectors, names: Collection[str], traffic: tuple[int, int]) -> Update:
    """The update with the vectors `up`, which the channel has received; its own numbers are among `names`.

    `traffic` are the bytes that were counted on the way, down and up.
    """
    own = {name.removeprefix(NUMBER): _take(fields, name, float) for name in fields if name.startswith(NUMBER)}
    for name, number in own.items():
        if name not in names or not math.isfinite(number):
            raise Malformed(f"it reports {plain(name)} = {number}")
    return Update(
        round=_take(fields, "round", int),
        client=_take(fields, "client", int),
        numbers=Numbers(
            samples=_take(fields, "samples", int),
            steps=_take(fields, "steps", int),
            loss=_take(fields, "loss", float),
            own=own,
        ),
        up=up,
        bytes_down=traffic[0],
        bytes_up=traffic[1],
    )


def score_fields(score: Score) -> dict[str, Value]:
    accuracy = {} if score.accuracy is None else {"accuracy": score.accuracy}
    return {"client": score.client, "samples": score.samples, "loss": score.loss, **accuracy}


def read_score(fields: Fields) -> Score | None:
    """The score, or None from a client without a test share."""
    score = Score(
        client=_take(fields, "client", int),
        samples=_take(fields, "samples", int),
        loss=_take(fields, "loss", float),
        accuracy=_take(fields, "accuracy", float) if "accuracy" in fields else None,
    )
    if score.samples == 0:
        return None
    if score.samples < 0 or not math.isfinite(score.loss) or not 0 <= (score.accuracy or 0.0) <= 1:
        raise Malformed(f"it scores {score}")
    return score


def read_model(arrays: Arrays, like: Tensor) -> Tensor:
    """The model to evaluate, [P]."""
    vectors = vectors_in(arrays, like)
    if vectors.keys() != {"x"}:
        raise Malformed("the order brings no model")
    return vectors["x"]


def read_accepted(fields: Fields) -> int | None:
    """The last round of this client's that the server accepted."""
    accepted = _take(fields, "accepted", int)
    if accepted < NEVER:
        raise Malformed(f"the order is after round {accepted}; rounds count from 1")
    return accepted or None


T = TypeVar("T", int, float, str, bool)


def _take(fields: Fields, name: str, kind: type[T]) -> T:
    value = fields.get(name)
    if type(value) is not kind:  # so that a bool is no int
        raise Malformed(f"its {name!r} is {shown(value)}, where {kind.__name__} is meant")
    return value


def _take_factors(fields: Fields) -> RateFactors:
    factors = _take_list(fields, "factors", float)
    if len(factors) != 2 or not all(0 < factor < math.inf for factor in factors):
        raise Malformed(f"its rates' factors are {shown(factors)}, where two numbers above 0 are meant")
    return RateFactors(*factors)


def _take_list(fields: Fields, name: str, kind: type[T]) -> list[T]:
    values = fields.get(name)
    if not isinstance(values, list) or any(type(value) is not kind for value in values):
        raise Malformed(f"its {name!r} is {shown(values)}, where a list of {kind.__name__} is meant")
    return [value for value in values if isinstance(value, kind)]
