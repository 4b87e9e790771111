"""A process that has imported torch and fedopt, and forks a copy of itself for each command of a page.

A command then costs what it does, not the two seconds of its imports. `shim.py` is `fedopt` on a page's PATH: it hands
its arguments, folder, environment and open files over a socket, forwards signals and ends with the command's status.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from tests.docs.shim import receive


def serve(place: Path) -> None:
    """Serves until standard input closes, which it does when the process that started this one has ended."""
    import fedopt
    import fedopt.commands.cli
    import simulations.commands.run
    import simulations.embedded  # noqa: F401

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
                _hear(key.fileobj, running, selector)
        _reap(running, selector)


def _hear(connection: socket.socket, running: dict[socket.socket, int], selector: selectors.BaseSelector) -> None:
    """A command to start, a signal for it, or the end of the shim."""
    if connection not in running:
        message, files = receive(connection)
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            selector.close()
            _become(json.loads(message), files)
        for file in files:
            os.close(file)
        running[connection] = pid
        return
    number = connection.recv(1)
    os.kill(running[connection], number[0] if number else signal.SIGKILL)
    if not number:
        selector.unregister(connection)


def _reap(running: dict[socket.socket, int], selector: selectors.BaseSelector) -> None:
    for connection, pid in list(running.items()):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with suppress(KeyError):
                selector.unregister(connection)
            with suppress(BrokenPipeError):
                connection.sendall(json.dumps(os.waitstatus_to_exitcode(status)).encode())
            connection.close()
            del running[connection]


def _become(asked: dict[str, object], files: list[int]) -> None:
    """Turns this process into the command that was asked for; does not return."""
    status = 1
    try:
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        sys.stdin = os.fdopen(0, "r", closefd=False)
        sys.stdout = os.fdopen(1, "w", closefd=False, buffering=1)
        sys.stderr = os.fdopen(2, "w", closefd=False, buffering=1)
        assert isinstance(asked["arguments"], list)
        assert isinstance(asked["environment"], dict)
        os.environ.clear()
        os.environ.update(asked["environment"])
        os.chdir(str(asked["folder"]))
        sys.modules["__main__"] = ModuleType("__main__")  # not this file, whose name would stand in messages
        command, *rest = asked["arguments"]
        if command == "page":
            from tests.docs.page import run

            status = run(Path(rest[0]))
        else:
            from fedopt.commands.cli import main

            sys.argv = asked["arguments"]
            main()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
