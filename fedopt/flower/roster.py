"""Who the clients are: the strategy asks each node once for its samples, and gives it its place among the clients.

The weights p_i of the objective and the cohorts of the rounds depend on all clients, and node ids are random: an
algorithm that keeps something of each client needs to know them before the first round.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from logging import getLogger

from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fedopt.errors import RunStopped
from fedopt.flower.messages import HELLO
from fedopt.text import plain

log = getLogger("flwr")

REMEDY = (
    'the ClientApp must answer it: @app.query("hello") def hello(msg, context): '
    "return fedopt.flower.hello(msg, context, samples=...)"
)


def hello(msg: Message, context: Context, samples: int) -> Message:
    """The reply to a strategy's hello.

    `samples` is n_i, by which this client counts in the objective. A client's number is `partition-id` in its node
    config, and so its cohorts are those of `fedopt run`; without it, nodes are numbered by their ids.
    """
    number = context.node_config.get("partition-id", -1)
    fields = ConfigRecord({"samples": int(samples), "number": number if isinstance(number, int) else -1})
    return Message(RecordDict({HELLO: fields}), reply_to=msg)


@dataclass
class Roster:
    """The clients of a run, and the nodes that they are at."""

    timeout: float
    """Seconds that a node has for its answer."""
    reasons: list[str] = field(default_factory=list)
    """Of the nodes that answered with an error."""
    samples: list[int] = field(default_factory=list)
    """n_i of each client."""
    _numbers: dict[int, int] = field(default_factory=dict)
    """Each client's place by the number that it gave, or by its node's id."""
    _client_at: dict[int, int | None] = field(default_factory=dict)
    """The client at each node that was asked; None for one that takes no part."""

    def gather(self, grid: Grid, least: int) -> None:
        """Waits for this many nodes and asks all that are connected: they are the clients of the run."""
        while len(nodes := list(grid.get_node_ids())) < least:
            log.info("Waiting for nodes to connect: %d connected (minimum required: %d).", len(nodes), least)
            time.sleep(1)
        answers = self._ask(grid, nodes)
        silent = [node for node in nodes if node not in answers]
        if silent:
            reason = f" ({self.reasons[0]})" if self.reasons else ""
            raise RunStopped(
                f"{len(silent)} of {len(nodes)} nodes do not answer the strategy's hello{reason}; {REMEDY}"
            )
        numbers = [number for _, number in answers.values()]
        by_number = len(set(numbers)) == len(numbers) and min(numbers) >= 0
        keys = {node: answers[node][1] if by_number else node for node in nodes}
        order = sorted(nodes, key=keys.__getitem__)
        self._numbers = {keys[node]: client for client, node in enumerate(order)}
        self._client_at = {node: client for client, node in enumerate(order)}
        self.samples = [answers[node][0] for node in order]
        if min(self.samples) < 1:
            raise RunStopped(f"client {self.samples.index(min(self.samples))} has no samples; leave its node out")

    def connected(self, grid: Grid) -> dict[int, int]:
        """The node of each client that is connected now. A client may come back at another node."""
        nodes = list(grid.get_node_ids())
        for node, (samples, number) in self._ask(grid, [n for n in nodes if n not in self._client_at]).items():
            client = self._numbers.get(number)
            if client is None or self.samples[client] != samples:
                log.warning("node %d joined after the first round and takes no part in this run", node)
                client = None
            self._client_at[node] = client
        # Of two nodes of one client the one that came last: the other is not known to be gone yet.
        return {client: node for node, client in self._client_at.items() if client is not None and node in nodes}

    def client_at(self, node: int) -> int | None:
        return self._client_at.get(node)

    def _ask(self, grid: Grid, nodes: list[int]) -> Mapping[int, tuple[int, int]]:
        """(samples, number) of each node that answers."""
        if not nodes:
            return {}
        questions = [
            Message(RecordDict(), dst_node_id=node, message_type=f"{MessageType.QUERY}.{HELLO}") for node in nodes
        ]
        answers: dict[int, tuple[int, int]] = {}
        for reply in grid.send_and_receive(questions, timeout=self.timeout):
            if reply.has_error():
                self.reasons.append(plain(reply.error.reason))
                continue
            fields = reply.content.config_records.get(HELLO, ConfigRecord())
            samples, number = fields.get("samples"), fields.get("number")
            if isinstance(samples, int) and isinstance(number, int):
                answers[reply.metadata.src_node_id] = (samples, number)
        return answers
