"""A process that has imported torch and fedopt, and forks a copy of itself for each command of a test or a page.

A command then costs what it does, not the seconds of its imports. `shim.py` stands for the command: it hands its
arguments, folder, environment and open files over a socket, forwards signals and ends with the command's status.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from tests.warm.shim import receive

LOADED = (
    "clients.commands.client",
    "clients.deployed.local_clients",
    "clients.deployed.node",
    "fedopt.commands.cli",
    "server.commands.server",
    "server.deployment",
    "simulations.commands.run",
    "simulations.commands.study",
    "simulations.embedded",
    "simulations.report.page",
    "simulations.study.conduct",
)


def serve(place: Path) -> None:
    """Serves until standard input closes, which it does when the process that started this one has ended."""
    before = set(os.environ)
    for module in LOADED:
        importlib.import_module(module)
    import torch

    import fedopt

    set_by_imports = {name: value for name, value in os.environ.items() if name not in before}
    torch.optim.SGD([torch.zeros(1)])  # the first optimizer of a process loads torch._dynamo
    fedopt.run, fedopt.resume, fedopt.Experiment, fedopt.History  # noqa: B018  # imported when they are asked for
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(place))
    listener.listen()
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write)
    selector.register(wake_read, selectors.EVENT_READ)
    running: dict[socket.socket, int] = {}
    gc.freeze()  # so that a collection in a command does not copy the pages of all these objects
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin:
                for pid in running.values():
                    os.kill(pid, signal.SIGKILL)
                return
            if key.fileobj is listener:
                connection, _ = listener.accept()
                selector.register(connection, selectors.EVENT_READ)
            elif key.fileobj == wake_read:
                os.read(wake_read, 4096)
            elif isinstance(key.fileobj, socket.socket):
                asked = _hear(key.fileobj, running, selector)
                if asked is not None:  # this is the child
                    for inherited in (listener, *running):  # else a shim would wait for this process, too
                        inherited.close()
                    _end(_status_of(*asked, set_by_imports))
        _reap(running, selector)


Asked = tuple[dict[str, object], list[int]]
"""A message of the shim, and its open files."""


def _hear(
    connection: socket.socket, running: dict[socket.socket, int], selector: selectors.BaseSelector
) -> Asked | None:
    """A command to start, a signal for it, or the end of the shim. In the process that is to be the command: what was
    asked for."""
    if connection not in running:
        message, files = receive(connection)
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)  # also where the tests run in the background
            selector.close()
            connection.close()
            return json.loads(message), files
        for file in files:
            os.close(file)
        running[connection] = pid
        connection.sendall(b"%d\n" % pid)
        return None
    number = connection.recv(1)
    os.kill(running[connection], number[0] if number else signal.SIGKILL)
    if not number:
        selector.unregister(connection)
    return None


def _reap(running: dict[socket.socket, int], selector: selectors.BaseSelector) -> None:
    for connection, pid in list(running.items()):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with suppress(KeyError):
                selector.unregister(connection)
            with suppress(BrokenPipeError):
                connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
            connection.close()
            del running[connection]


def _end(status: int) -> NoReturn:
    """Ends this process as the interpreter does, but leaves its memory to the system: clearing objects would first copy
    the pages that it shares with the process that it was forked from."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _status_of(asked: dict[str, object], files: list[int], set_by_imports: dict[str, str]) -> int:
    """The exit status of the command that was asked for, which this process becomes."""
    try:
        _become(asked, files, set_by_imports)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _become(asked: dict[str, object], files: list[int], set_by_imports: dict[str, str]) -> None:
    """Turns this process into the command that was asked for."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdin = os.fdopen(0, "r", closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False, buffering=1)
    sys.stderr = os.fdopen(2, "w", closefd=False, buffering=1)
    assert isinstance(asked["arguments"], list)
    assert isinstance(asked["environment"], dict)
    os.environ.clear()
    os.environ.update({**set_by_imports, **asked["environment"]})
    os.chdir(str(asked["folder"]))
    sys.modules["__main__"] = ModuleType("__main__")  # not this file, whose name would stand in messages
    command, *rest = asked["arguments"]
    if command == "page":
        from tests.docs.page import run

        sys.exit(run(Path(rest[0])))
    if command == "local_clients":
        from clients.deployed.local_clients import main as local_clients

        sys.exit(local_clients())
    from fedopt.commands.cli import main

    own = os.environ.get("PYTHONPATH", "")
    sys.path[:1] = [os.getcwd(), *(entry for entry in own.split(os.pathsep) if entry)]  # as of `python -m fedopt`
    importlib.invalidate_caches()
    sys.argv = asked["arguments"]
    main()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
