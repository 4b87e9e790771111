"""What a server and a deployed client say to each other, apart from how it travels.

    hello      server to client: who are you? with the experiment and the shape of the task; no weights
    greeting   client to server: which client it is and how many samples it holds, or why it cannot take part
    order      server to client: a round's work, with the vectors x and what the algorithm sends down
    update     client to server: what came of it
    evaluate   server to client: a model x, to be tried on the client's own test share
    score      client to server: how it did there
    farewell   server to client: the run is over, or this client is not welcome

Each is a flat table of plain values (Fields), and orders and updates carry vectors beside it. Whatever arrives
is read as if a stranger had sent it: Malformed says in a clause what is wrong.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from fedopt.errors import FedoptError
from fedopt.experiment.experiment import Experiment
from fedopt.experiment.file import as_sections
from fedopt.round.federation import Score, Update, WorkOrder
from fedopt.storage.npy import NotThatArray, read_npy
from fedopt.text import plain
from fedopt.vectors.layout import Vectors

PROTOCOL = 2
HELLO, FAREWELL, TRAIN, EVALUATE = "query.hello", "query.farewell", "train", "evaluate"
"""Types of messages."""

TOLD = "told."
"""What an update's numbers for the records begin with."""

Value = int | float | str | bytes | bool | list[int] | list[float] | list[str] | list[bytes] | list[bool]
Fields = Mapping[str, Value]
Arrays = Mapping[str, np.ndarray]

MOST_ARRAYS = 64
"""Arrays in one message; algorithms send a few."""


class PackedArray(Protocol):
    """An array as it travels: Flower's Array. All of it comes from the other side, and may be anything."""

    dtype: str
    shape: tuple[int, ...]
    stype: str
    data: bytes


OWN = {"data": {"path", "download"}, "run": {"device", "threads", "lanes", "workers"}}
"""Keys of an experiment that are each machine's own: they never travel, are dropped if they arrive all the same, and
a client may set them itself."""

MOST_TEXT, MOST_NAMES = 2**16, 2**16
"""Characters of an experiment, and classes, that a hello may bring."""

LONGEST_NAME, MOST_AXES, LARGEST_SAMPLE = 200, 8, 2**22
"""Characters of a class's name; axes, and numbers, of a sample."""


class Malformed(FedoptError):
    """A message that is not what it should be."""


@dataclass(frozen=True)
class Hello:
    federation: str
    """Names this run among all others: what a client keeps is kept for it alone."""
    experiment: str
    """The experiment as JSON, without what is each machine's own."""
    sample_shape: tuple[int, ...]
    class_names: tuple[str, ...]

    @classmethod
    def of(cls, federation: str, experiment: Experiment, sample_shape: Sequence[int], names: Sequence[str]) -> Hello:
        sections = {
            section: {key: value for key, value in keys.items() if key not in OWN.get(section, ())}
            for section, keys in as_sections(experiment).items()
        }
        return cls(federation, json.dumps(sections, sort_keys=True), tuple(sample_shape), tuple(names))

    def fields(self) -> dict[str, Value]:
        return {
            "protocol": PROTOCOL,
            "federation": self.federation,
            "experiment": self.experiment,
            "sample_shape": list(self.sample_shape),
            "class_names": list(self.class_names),
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
        )
        hello._check_bounds()
        return hello

    def _check_bounds(self) -> None:
        """Malformed for what no experiment has, before anything is made of it."""
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
        """The experiment's sections, to be completed with what is this machine's own."""
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
    """0 where the client cannot take part."""
    refusal: str = ""
    """Why it cannot."""

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
    """Whether the client should end as one that was turned away."""

    def fields(self) -> dict[str, Value]:
        return {"reason": self.reason, "failed": self.failed}

    @classmethod
    def read(cls, fields: Fields) -> Farewell:
        return cls(_take(fields, "reason", str), _take(fields, "failed", bool))


NEVER = 0
"""Stands for None where a round is meant: rounds count from 1."""


@dataclass(frozen=True)
class Order:
    """A work order, and which older state of the client's must not be thrown away yet."""

    work: WorkOrder
    saved: int | None
    """The last round of this client's that the server's checkpoint knows of: a server that comes back from it
    asks for the state of that round."""

    def fields(self) -> dict[str, Value]:
        work = self.work
        return {
            "round": work.round,
            "client": work.client,
            "accepted": work.accepted or NEVER,
            "saved": self.saved or NEVER,
            "gradient": work.gradient,
        }

    @property
    def vectors(self) -> dict[str, Tensor]:
        return {"x": self.work.x, **{f"down.{name}": vector for name, vector in self.work.down.items()}}

    @classmethod
    def read(cls, fields: Fields, arrays: Arrays, like: Tensor) -> Order:
        """`like` is a vector [P] of the model's, for its type, its length and where it is."""
        vectors = _vectors(arrays, like)
        if "x" not in vectors:
            raise Malformed("the order brings no model")
        work = WorkOrder(
            round=_take(fields, "round", int),
            client=_take(fields, "client", int),
            accepted=_take(fields, "accepted", int) or None,
            x=vectors.pop("x"),
            down={name.removeprefix("down."): vector for name, vector in vectors.items()},
            gradient=_take(fields, "gradient", bool),
        )
        saved = _take(fields, "saved", int)
        if work.round < 1 or (work.accepted or NEVER) < NEVER or saved < NEVER:
            raise Malformed(
                f"the order is for round {work.round}, after {work.accepted} and {saved}; rounds count from 1"
            )
        return cls(work, saved or None)


def update_fields(update: Update) -> dict[str, Value]:
    return {
        "round": update.round,
        "client": update.client,
        "samples": update.samples,
        "steps": update.steps,
        "loss": update.loss,
        **{f"{TOLD}{name}": number for name, number in update.told.items()},
    }


def read_update(
    fields: Fields,
    arrays: Arrays,
    like: Tensor,
    *,
    names: set[str],
    tells: frozenset[str],
    traffic: tuple[int, int],
) -> Update:
    """The update, whose vectors must be just `names`, and whose numbers for the records are among `tells`.

    `traffic` is what was measured on the way, down and up.
    """
    vectors = _vectors(arrays, like)
    told = {name.removeprefix(TOLD): _take(fields, name, float) for name in fields if name.startswith(TOLD)}
    for name, number in told.items():
        if name not in tells or not math.isfinite(number):
            raise Malformed(f"it tells {plain(name)} = {number}")
    if vectors.keys() != names:
        raise Malformed(f"it brings {_shown(sorted(vectors))} where {sorted(names)} belong")
    return Update(
        round=_take(fields, "round", int),
        client=_take(fields, "client", int),
        samples=_take(fields, "samples", int),
        steps=_take(fields, "steps", int),
        loss=_take(fields, "loss", float),
        up=vectors,
        bytes_down=traffic[0],
        bytes_up=traffic[1],
        told=told,
    )


def score_fields(score: Score) -> dict[str, Value]:
    return {"client": score.client, "samples": score.samples, "loss": score.loss, "accuracy": score.accuracy}


def read_score(fields: Fields) -> Score | None:
    """The score; None from a client without a test share."""
    score = Score(
        client=_take(fields, "client", int),
        samples=_take(fields, "samples", int),
        loss=_take(fields, "loss", float),
        accuracy=_take(fields, "accuracy", float),
    )
    if score.samples == 0:
        return None
    if score.samples < 0 or not math.isfinite(score.loss) or not 0 <= score.accuracy <= 1:
        raise Malformed(f"it scores {score}")
    return score


def read_model(arrays: Arrays, like: Tensor) -> Tensor:
    """The model that a client is to evaluate, [P]."""
    vectors = _vectors(arrays, like)
    if vectors.keys() != {"x"}:
        raise Malformed("the order brings no model")
    return vectors["x"]


def unpack(packed: Mapping[str, PackedArray], like: Tensor, names: Collection[str] | None = None) -> Arrays:
    """The arrays of a message, as read-only views: just `names`, if given, each of the shape and type of `like`.

    Malformed before anything is allocated if one is not: numpy.load, which allocates what a header declares and
    raises many kinds of errors, is not used.
    """
    if names is not None and packed.keys() != set(names):
        raise Malformed(f"it brings {_shown(sorted(packed))} where {sorted(names)} belong")
    if len(packed) > MOST_ARRAYS:
        raise Malformed(f"it brings {len(packed)} arrays")
    expected, shape = _dtype_of(like), tuple(like.shape)
    arrays: dict[str, np.ndarray] = {}
    for name, array in packed.items():
        if array.stype != "numpy.ndarray":
            raise Malformed(f"{plain(name)} is of the kind {_shown(array.stype)}, where numpy.ndarray belongs")
        if array.dtype != expected.name or array.shape != shape:
            raise Malformed(_unlike(name, array.dtype, array.shape, like))
        try:
            arrays[name] = read_npy(array.data, expected, shape)
        except NotThatArray as error:
            raise Malformed(f"its vectors are not plain arrays: {plain(name)} {error}") from error
    return arrays


def as_arrays(vectors: Vectors) -> dict[str, np.ndarray]:
    return {name: vector.detach().cpu().contiguous().numpy() for name, vector in vectors.items()}


def _vectors(arrays: Arrays, like: Tensor) -> dict[str, Tensor]:
    expected = _dtype_of(like)
    for name, array in arrays.items():
        if array.shape != tuple(like.shape) or array.dtype != expected:
            raise Malformed(_unlike(name, array.dtype, array.shape, like))
    # from_numpy shares memory that may be read-only; on the CPU, too, a vector must be the receiver's own.
    return {name: torch.tensor(array, device=like.device) for name, array in arrays.items()}


def _dtype_of(like: Tensor) -> np.dtype:
    return np.dtype(str(like.dtype).removeprefix("torch."))


def _unlike(name: str, dtype: object, shape: object, like: Tensor) -> str:
    return f"{plain(name)} is {plain(dtype, 40)} {_shown(shape)}, the model {_dtype_of(like)} {tuple(like.shape)}"


def _shown(value: object) -> str:
    """What was sent, short and on one line."""
    return plain(_SHORT.repr(value), 200)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 120


T = TypeVar("T", int, float, str, bool)


def _take(fields: Fields, name: str, kind: type[T]) -> T:
    value = fields.get(name)
    if type(value) is not kind:  # and so no bool for an int
        raise Malformed(f"its {name!r} is {_shown(value)}, where {kind.__name__} is meant")
    return value


def _take_list(fields: Fields, name: str, kind: type[T]) -> list[T]:
    values = fields.get(name)
    if not isinstance(values, list) or any(type(value) is not kind for value in values):
        raise Malformed(f"its {name!r} is {_shown(values)}, where a list of {kind.__name__} is meant")
    return [value for value in values if isinstance(value, kind)]
