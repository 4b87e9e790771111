"""Stands for a command: asks the process of server.py to run the command with this one's files and folder.

It is run without site-packages, so it imports the standard library alone.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys

SOCKET = "FEDOPT_WARM_SOCKET"
PID_FILE = "FEDOPT_WARM_PID"
"""Environment: where the process listens; a file for the process number of the command, if a test asks for it."""

FILES = 3


def ask(place: str, arguments: list[str]) -> int:
    """The exit status of the command, which reads and writes this process's files and gets its signals."""
    environment = {name: value for name, value in os.environ.items() if name not in (SOCKET, PID_FILE)}
    if arguments[0] == "page":
        environment[SOCKET] = place  # for the commands of the page
    message = {"arguments": arguments, "folder": os.getcwd(), "environment": environment}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(place)
        send(connection, json.dumps(message).encode(), [0, 1, 2])
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda received, _: connection.sendall(bytes([received])))
        answer = b""
        while b"\n" not in answer:
            part = connection.recv(64)
            if not part:
                return 1
            answer += part
        pid, _, answer = answer.partition(b"\n")
        if PID_FILE in os.environ:
            with open(os.environ[PID_FILE], "wb") as file:
                file.write(pid)
        while b"\n" not in answer and (part := connection.recv(64)):
            answer += part
    status = int(answer or b"1")
    if status < 0:  # ended by a signal, as this process then does too
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


def send(connection: socket.socket, message: bytes, files: list[int]) -> None:
    socket.send_fds(connection, [struct.pack("!I", len(message))], files)
    connection.sendall(message)


def receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    header, files, _, _ = socket.recv_fds(connection, 4, FILES)
    (length,) = struct.unpack("!I", header)
    message = b""
    while len(message) < length:
        message += connection.recv(length - len(message))
    return message, list(files)


if __name__ == "__main__":
    sys.exit(ask(os.environ[SOCKET], sys.argv[1:]))
