"""The bench's work in Flower's own simulation: a ServerApp and a ClientApp on Ray's actors.

    FEDOPT_BENCH_WORK='{"model": "mlp", "local": {...}}' python -m simulations.benchmarks.flower_ray

prints "steps per second: ..." after some rounds. The clients train with the plain loop on tensors in memory.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import statistics
import time
from collections.abc import Iterable

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.simulation import run_simulation

from simulations.benchmarks.choices import CLIENTS
from simulations.benchmarks.engine import Bench
from simulations.benchmarks.plain_loop import train_plainly

ROUNDS = 4
"""The first is not counted."""


@functools.cache
def bench() -> Bench:
    """Data, parts and the initial model, made once per process and the same in all processes."""
    torch.set_num_threads(1)
    work = json.loads(os.environ["FEDOPT_BENCH_WORK"])
    local = work["local"]
    return Bench(work["model"], local["batch_size"], name_of(local), workers=1)


def name_of(local: dict[str, object]) -> str:
    """The bench's name of these settings."""
    return "momentum" if local["optimizer"] == "sgd" and local.get("momentum") else str(local["optimizer"])


client_app = ClientApp()


@client_app.query()
def who(message: Message, context: Context) -> Message:
    number = int(str(context.node_config["partition-id"]))
    return Message(RecordDict({"who": MetricRecord({"client": number})}), reply_to=message)


@client_app.train()
def train(message: Message, context: Context) -> Message:
    work = bench()
    client = int(str(context.node_config["partition-id"]))
    arrays = message.content["model"]
    assert isinstance(arrays, ArrayRecord)
    work.module.load_state_dict(arrays.to_torch_state_dict())
    batches = work.batches(client)
    trained = train_plainly(work.module, work.experiment.local, work.x, work.y, batches)
    content = RecordDict({"model": ArrayRecord(trained.state_dict()), "steps": MetricRecord({"steps": len(batches)})})
    return Message(content, reply_to=message)


server_app = ServerApp()


@server_app.main()
def serve(grid: Grid, context: Context) -> None:
    work = bench()
    while len(nodes := list(grid.get_node_ids())) < CLIENTS:
        time.sleep(0.1)
    client_of = {
        reply.metadata.src_node_id: int(str(reply.content.metric_records["who"]["client"]))
        for reply in ask(grid, nodes, RecordDict({"nothing": ConfigRecord()}), "query")
    }
    cohort = [node for node, client in client_of.items() if client in work.cohort]
    state = work.module.state_dict()
    speeds: list[float] = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        replies = list(ask(grid, cohort, RecordDict({"model": ArrayRecord(state)}), "train"))
        states = [reply.content.array_records["model"].to_torch_state_dict() for reply in replies]
        shares = torch.tensor([work.share_of[client_of[reply.metadata.src_node_id]] for reply in replies])
        shares /= shares.sum()
        state = {name: sum(share * own[name] for share, own in zip(shares, states, strict=True)) for name in states[0]}
        steps = sum(int(str(reply.content.metric_records["steps"]["steps"])) for reply in replies)
        speeds.append(steps / (time.perf_counter() - start))
    print(f"steps per second: {statistics.median(speeds[1:])}", flush=True)


def ask(grid: Grid, nodes: list[int], content: RecordDict, kind: str) -> Iterable[Message]:
    replies = grid.send_and_receive([Message(content, dst_node_id=node, message_type=kind) for node in nodes])
    for reply in replies:
        if reply.has_error():
            raise SystemExit(f"a client failed: {reply.error}")
        yield reply


if __name__ == "__main__":
    # Imported by name because Ray's actors import the apps' module, and cannot import __main__.
    apps = importlib.import_module("simulations.benchmarks.flower_ray")
    run_simulation(apps.server_app, apps.client_app, CLIENTS, backend_config={"client_resources": {"num_cpus": 1}})
