"""Many clients in one process over real gRPC, which answer at once without training.

python -m tests.swarm HOST:PORT COUNT
"""

from __future__ import annotations

import sys
import threading

import grpc
import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.app.message import Array

from clients.deployed.connection import Connection, Credentials, open_channel
from fedopt.wire import FAREWELL, HELLO, Greeting


def answer(message: Message, client: int) -> RecordDict:
    if message.metadata.message_type == FAREWELL:
        return RecordDict()
    if message.metadata.message_type == HELLO:
        return RecordDict({"greeting": ConfigRecord(dict(Greeting(client, 1).fields()))})
    order = message.content.config_records["order"]
    x = message.content.array_records["vectors"]["x"].numpy()
    update = {"round": order["round"], "client": client, "samples": 1, "steps": 1, "loss": 1.0}
    dx = np.full_like(x, 1e-3 * (client + 1))
    return RecordDict({"update": ConfigRecord(update), "vectors": ArrayRecord({"dx": Array(dx)})})


def play(address: str, client: int, channel: grpc.Channel) -> None:
    connection = Connection(address, Credentials(None, None), channel)
    connection.join()
    while True:
        message = connection.receive()
        if message is None:
            continue
        connection.send(Message(answer(message, client), reply_to=message), 0.0)
        if message.metadata.message_type == FAREWELL:
            return


if __name__ == "__main__":
    channels = [open_channel(sys.argv[1], Credentials(None, None)) for _ in range(8)]
    threads = [
        threading.Thread(target=play, args=(sys.argv[1], client, channels[client % 8]))
        for client in range(int(sys.argv[2]))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
