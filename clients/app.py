"""The Flower ClientApp: the same code in a resident client, a stock SuperNode and Flower's Ray simulation.

The server's hello describes the federation. The node stores it in its context, and every later order is carried out
by the `FederationClient` built from it, which a long-lived process builds only once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.deployed.bounds import in_simulation
from clients.deployed.cache import ClientCache
from clients.deployed.client import ClientConfig, FederationClient
from fedopt.errors import FedoptError, InvalidExperiment
from fedopt.text import plain
from fedopt.wire import (
    Farewell,
    Greeting,
    Hello,
    Malformed,
    Order,
    read_accepted,
    read_model,
    score_fields,
    update_fields,
)
from fedopt.wire_arrays import as_arrays, unpack

Defaults = Mapping[str, str]

STATE = Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local" / "state")) / "fedopt"
"""Where a node stores its state by default."""

CLIENTS = ClientCache(64)
"""The clients of this process; beyond this number, the least recently used is made again."""


class NotIntroduced(FedoptError):
    """An order came before the server's hello."""


def hello(message: Message, context: Context, defaults: Defaults) -> Message:
    """Replies with this node's client number and samples, or with the reason why it cannot take part."""
    said = Hello.read(_fields(message, "hello"))
    config = client_config(context, defaults)
    try:
        greeting = Greeting(config.client, CLIENTS.client(said, config).samples)
    except FedoptError as error:
        greeting = Greeting(config.client, 0, plain(error))
        return Message(RecordDict({"greeting": ConfigRecord(greeting.fields())}), reply_to=message)
    context.state["hello"] = ConfigRecord(said.fields())
    return Message(RecordDict({"greeting": ConfigRecord(greeting.fields())}), reply_to=message)


def train(message: Message, context: Context, defaults: Defaults) -> Message:
    """Carries out one order. Any error is raised, and its text reaches the server as the reason."""
    client = _client_of(context, defaults)
    arrays = unpack(_record(message.content, "vectors"), client.like)
    order = Order.read(_fields(message, "order"), arrays, client.like)
    numbers, payload = client.train(order)
    vectors = ArrayRecord({name: Array(array) for name, array in as_arrays(payload).items()})
    update = ConfigRecord(update_fields(order.broadcast.round, order.work.client, numbers))
    content = RecordDict({"update": update, "vectors": vectors})
    return Message(content, reply_to=message)


def evaluate(message: Message, context: Context, defaults: Defaults) -> Message:
    """Evaluates the received model on this node's own test share."""
    client = _client_of(context, defaults)
    arrays = unpack(_record(message.content, "vectors"), client.like, {"x"})
    score = client.evaluate(read_model(arrays, client.like), read_accepted(_fields(message, "order")))
    return Message(RecordDict({"score": ConfigRecord(score_fields(score))}), reply_to=message)


def farewell(message: Message, context: Context, defaults: Defaults) -> Message:
    """Acknowledges the end of the run; a resident client then ends."""
    Farewell.read(_fields(message, "farewell"))
    return Message(RecordDict(), reply_to=message)


def _client_of(context: Context, defaults: Defaults) -> FederationClient:
    if "hello" not in context.state.config_records:
        raise NotIntroduced("this node has not received the hello of its federation")
    return CLIENTS.client(Hello.read(context.state.config_records["hello"]), client_config(context, defaults))


def order_bytes(context: Context) -> int | None:
    """Bytes of the vectors of an order to this node; None before its hello."""
    if "hello" not in context.state.config_records:
        return None
    return _client_of(context, {}).order_bytes


def client_config(context: Context, defaults: Defaults) -> ClientConfig:
    """This node's own settings, from its node config and, for missing keys, from `defaults`."""
    config = {**defaults, **context.node_config}
    if "allow-model" in config:
        raise InvalidExperiment("this node's config has allow-model, which is called allow-code now")
    client = config.get("partition-id")
    if not isinstance(client, int) or isinstance(client, bool):
        raise Malformed('this node does not know which client it is: its node config lacks "partition-id"')
    simulated = in_simulation()
    path = config.get("data-path")
    if path is None and simulated:  # a SuperNode's run config comes from the server
        path = context.run_config.get("data.path") or None
    own = str(config.get("set", "")).splitlines()
    set_here = {text.partition("=")[0].strip() for text in own}  # the machine's own --set wins
    overrides = {"data.path": path, "run.device": config.get("device")}
    data = config.get("data")
    return ClientConfig(
        client=client,
        state=Path(str(config.get("state", STATE))),
        data=None if data is None else Path(str(data)),
        overrides=(
            *(f"{key}={value}" for key, value in overrides.items() if value is not None and key not in set_here),
            *own,
        ),
        code=None if simulated else tuple(str(config.get("allow-code", "")).split()),
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
    """The app; `defaults` holds values for keys that a node config lacks."""
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
