"""The Flower ClientApp: the same code in a resident client, a stock SuperNode and Flower's Ray simulation.

A node learns from the server's hello which federation it is in and keeps that in its context; every later order
is carried out in the workplace that follows from it, which a process that lives on makes only once.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.app.message import Array
from flwr.clientapp import ClientApp

from clients.deployed.bounds import in_simulation
from clients.deployed.client import Own, Workplace
from fedopt.errors import FedoptError
from fedopt.text import plain
from fedopt.wire import (
    Farewell,
    Greeting,
    Hello,
    Malformed,
    Order,
    as_arrays,
    read_model,
    score_fields,
    unpack,
    update_fields,
)

Defaults = Mapping[str, str]

STATE = Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local" / "state")) / "fedopt"
"""Where a node keeps its state if nobody says where."""

PLACES = 64
"""Workplaces that a process keeps; more clients than this in one process take turns."""


class NotIntroduced(FedoptError):
    """An order came before the server's hello."""


def hello(message: Message, context: Context, defaults: Defaults) -> Message:
    """Says which client this node is. A client that cannot take part says why instead."""
    said = Hello.read(_fields(message, "hello"))
    own = own_of(context, defaults)
    try:
        greeting = Greeting(own.client, workplace(said, own).samples)
    except FedoptError as error:
        greeting = Greeting(own.client, 0, plain(error))
        return Message(RecordDict({"greeting": ConfigRecord(greeting.fields())}), reply_to=message)
    context.state["hello"] = ConfigRecord(said.fields())
    return Message(RecordDict({"greeting": ConfigRecord(greeting.fields())}), reply_to=message)


def train(message: Message, context: Context, defaults: Defaults) -> Message:
    """Carries out one order; whatever prevents it is raised, and reaches the server as the reason."""
    place = _place(context, defaults)
    arrays = unpack(_record(message.content, "vectors"), place.like)
    update = place.carry_out(Order.read(_fields(message, "order"), arrays, place.like))
    vectors = ArrayRecord({name: Array(array) for name, array in as_arrays(update.up).items()})
    content = RecordDict({"update": ConfigRecord(update_fields(update)), "vectors": vectors})
    return Message(content, reply_to=message)


def evaluate(message: Message, context: Context, defaults: Defaults) -> Message:
    """How the model that came does on this node's own test share."""
    place = _place(context, defaults)
    arrays = unpack(_record(message.content, "vectors"), place.like, {"x"})
    score = place.evaluate(read_model(arrays, place.like))
    return Message(RecordDict({"score": ConfigRecord(score_fields(score))}), reply_to=message)


def farewell(message: Message, context: Context, defaults: Defaults) -> Message:
    """Acknowledges that the server wants nothing more of this node; a resident client then ends."""
    Farewell.read(_fields(message, "farewell"))
    return Message(RecordDict(), reply_to=message)


def _place(context: Context, defaults: Defaults) -> Workplace:
    if "hello" not in context.state.config_records:
        raise NotIntroduced("this node has not been told which federation it is in")
    return workplace(Hello.read(context.state.config_records["hello"]), own_of(context, defaults))


_only_workplace = functools.lru_cache(maxsize=1)(Workplace)
_workplaces = functools.lru_cache(maxsize=PLACES)(Workplace)


def workplace(said: Hello, own: Own) -> Workplace:
    """That of the hello: the one of before, if it says the same."""
    return (_only_workplace if own.alone else _workplaces)(said, own)


def order_bytes(context: Context) -> int | None:
    """How large the vectors of an order to this node are; None before it is in a federation."""
    if "hello" not in context.state.config_records:
        return None
    return _place(context, {}).order_bytes


def own_of(context: Context, defaults: Defaults) -> Own:
    """What this node decides itself, from its node config; where that is silent, from `defaults`."""
    config = {**defaults, **context.node_config}
    client = config.get("partition-id")
    if not isinstance(client, int) or isinstance(client, bool):
        raise Malformed('this node does not know which client it is: its node config lacks "partition-id"')
    simulated = in_simulation()
    path = config.get("data-path")
    if path is None and simulated:  # a SuperNode's run config comes from the server, which chooses no paths here
        path = context.run_config.get("data.path") or None
    own = str(config.get("set", "")).splitlines()
    set_here = {text.partition("=")[0].strip() for text in own}  # what a machine sets itself stands before the rest
    overrides = {"data.path": path, "run.device": config.get("device")}
    data = config.get("data")
    return Own(
        client=client,
        state=Path(str(config.get("state", STATE))),
        data=None if data is None else Path(str(data)),
        overrides=(
            *(f"{key}={value}" for key, value in overrides.items() if value is not None and key not in set_here),
            *own,
        ),
        models=None if simulated else tuple(str(config.get("allow-model", "")).split()),
        alone=bool(config.get("resident", False)),
    )


def _fields(message: Message, name: str) -> ConfigRecord:
    if not message.has_content() or name not in message.content.config_records:
        raise Malformed(f"a {message.metadata.message_type} message without its {name!r}")
    return message.content.config_records[name]


def _record(content: RecordDict, name: str) -> ArrayRecord:
    if name not in content.array_records:
        raise Malformed(f"an order without its {name!r}")
    return content.array_records[name]


def make_app(defaults: Defaults) -> ClientApp:
    """The app, for nodes whose config may be silent about what `defaults` says."""
    made = ClientApp()

    @made.query("hello")
    def _hello(message: Message, context: Context) -> Message:
        return hello(message, context, defaults)

    @made.train()
    def _train(message: Message, context: Context) -> Message:
        return train(message, context, defaults)

    @made.evaluate()
    def _evaluate(message: Message, context: Context) -> Message:
        return evaluate(message, context, defaults)

    @made.query("farewell")
    def _farewell(message: Message, context: Context) -> Message:
        return farewell(message, context, defaults)

    return made


app = make_app({})
