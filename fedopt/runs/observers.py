"""Observers follow a run: progress displays, trackers, a user's own functions.

An observer is a plain function `f(record)` or `f(record, run)`, called after each round, or an object with any of the
methods of `Observer`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from fedopt.errors import FedoptError, InvalidExperiment, RunStopped, StopRun
from fedopt.runs.history import History, RoundRecord
from fedopt.runs.view import RunView
from fedopt.storage.files import NO_ROOM

HOOKS = ("begin", "note", "started", "round_done", "finished", "ended")


class Observer(Protocol):
    """The three methods of a typical observer. Each of them is optional, and so are the others of `AnyObserver`."""

    def started(self, directory: Path, rounds_done: int, rounds: int) -> None: ...

    def round_done(self, record: RoundRecord) -> None: ...

    def ended(self) -> None:
        """The run has ended, or has stopped with an error."""
        ...


AnyObserver = object
"""A function `f(record)` or `f(record, run)`, or an object with any of these methods:

`begin(run)` before all others, with a `RunView`; `note(sentence)`: which backend trains, what is unusual in the data;
`started(directory, rounds_done, rounds)`; `round_done(record)` after each round; `finished(history)` once the summary
is written; `ended()` last, also if the run has stopped with an error.

An observer that raises `fedopt.StopRun` in `round_done` ends the run after this round."""


class Observers:
    """All observers of one run. Each hook calls every observer that has it, in the given order."""

    def __init__(self, given: Sequence[AnyObserver]) -> None:
        """InvalidExperiment if one of them has no hook."""
        self._members = [(_name(observer), _hooks(observer)) for observer in given]
        self._view: RunView | None = None

    def begin(self, view: RunView) -> None:
        self._view = view
        self._call("begin", view)

    def note(self, sentence: str) -> None:
        self._call("note", sentence)

    def started(self, directory: Path, rounds_done: int, rounds: int) -> None:
        self._call("started", directory, rounds_done, rounds)

    def round_done(self, record: RoundRecord) -> bool:
        """Whether an observer has raised StopRun. All of them have seen the record."""
        return self._call("round_done", record, self._view, may_stop=True)

    def finished(self, history: History) -> None:
        self._call("finished", history)

    def ended(self) -> None:
        self._call("ended")

    def _call(self, hook: str, *arguments: object, may_stop: bool = False) -> bool:
        """Calls all, then raises the first failure as RunStopped, with the observer's name."""
        failure: Exception | None = None
        stop = False
        for name, hooks in self._members:
            if hook not in hooks:
                continue
            try:
                hooks[hook](*arguments)
            except StopRun as error:
                if may_stop:
                    stop = True
                    continue
                failure = failure or _failed(name, hook, error, "StopRun has an effect in round_done only")
            except FedoptError as error:
                failure = failure or error
            except Exception as error:  # a bug in the observer, which may be anything
                full = isinstance(error, OSError) and error.errno in NO_ROOM
                gone = self._view is not None and not self._view.directory.exists()
                failure = failure or (error if full or gone else _failed(name, hook, error))
        if failure is not None:
            raise failure
        return stop


def _failed(name: str, hook: str, error: Exception, reason: str = "") -> RunStopped:
    reason = reason or (f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
    rest = "; the run itself is complete" if hook == "finished" else ""
    stopped = RunStopped(f"the observer {name} failed in {hook}: {reason}{rest}")
    stopped.__cause__ = error
    return stopped


def _name(observer: AnyObserver) -> str:
    name: str = getattr(observer, "__qualname__", "") or type(observer).__qualname__
    return name.rpartition("<locals>.")[2]


def _hooks(observer: AnyObserver) -> dict[str, Callable[..., Any]]:
    name = _name(observer)
    if isinstance(observer, type):
        raise InvalidExperiment(f"observers: {name} is a class; give an object, {name}()")
    found = {hook: method for hook in HOOKS if callable(method := getattr(observer, hook, None))}
    if "round_done" in found:
        round_done = found["round_done"]
        found["round_done"] = lambda record, view: round_done(record)
    if found:
        return found
    if not callable(observer):
        raise InvalidExperiment(f"observers: {name} is no function and has none of the methods {', '.join(HOOKS)}")
    return {"round_done": observer if _takes_run(observer, name) else lambda record, view: observer(record)}


def _takes_run(function: Callable[..., Any], name: str) -> bool:
    """Whether it is called as f(record, run)."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:  # some functions written in C have no signature
        return False
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p for p in places if p.default is p.empty]
    takes_any = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if len(needed) > 2 or not (places or takes_any):
        raise InvalidExperiment(f"observers: {name}{inspect.signature(function)} must take (record) or (record, run)")
    return len(needed) == 2 or (len(places) > 1 and places[1].name == "run")
