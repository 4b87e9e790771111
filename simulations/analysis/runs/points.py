"""Models of a run by name, for every analysis.

    initial        the model that the run began with
    final          its last global model
    round:K        the global model after round K, which run.keep_models has kept
    client:I       client I's model after its work in one more round, computed as the run would
    client:I@K     the same from the model after round K, where a round starts from the model alone; or from 0
    own:I          the model that client I uses itself, under an algorithm that gives clients models of their own
    DIR            another run's last global model, of the same parameters

>>> run = AnalyzedRun.read(Path("runs/a"))                 # doctest: +SKIP
>>> points = Points(run)                                   # doctest: +SKIP
>>> point = points.at("client:3")                          # doctest: +SKIP
>>> point.label, point.w.shape                             # doctest: +SKIP
('client 3', torch.Size([4810]))
>>> run.objective(500, 0, at=point).value(point.w)         # doctest: +SKIP
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from fedopt.errors import InvalidExperiment
from fedopt.registry import nearest
from fedopt.runs.load import load
from fedopt.runs.model_file import initial_module, read_model
from fedopt.vectors.layout import Layout, running_statistics
from simulations.analysis.runs.next_round import NextRound
from simulations.analysis.runs.of_run import AnalyzedRun

FINAL = "final"


@dataclass(frozen=True)
class Point:
    """A model of a run."""

    name: str
    """As it was asked for."""
    label: str
    """For figures and tables."""
    module: nn.Module
    """On the CPU, in eval mode. Where it has BatchNorm, its running statistics are those of this model."""
    round: int | None
    """The rounds that led to it; None for a model of another run."""

    @cached_property
    def w(self) -> Tensor:
        """The trainable parameters, [P] in float64."""
        return Layout.of(self.module).flatten(self.module).double()

    @property
    def is_global(self) -> bool:
        """Whether it is one of the run's own global models."""
        return self.name in ("initial", FINAL) or self.name.startswith("round:")

    @property
    def file_name(self) -> str:
        """For files: "client-3", "round-20"; a directory by its last part."""
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", self.name.rstrip("/").rpartition("/")[2]).strip("-.") or "run"


class Points:
    """The models of one run."""

    def __init__(self, run: AnalyzedRun) -> None:
        self._run, self._history = run, run.history
        self._final = self._history.model()

    @property
    def names(self) -> list[str]:
        """Those that the run has: all but those of other runs and of clients at saved rounds."""
        rounds = [f"round:{round_}" for round_ in self._history.kept_rounds]
        own = ["own"] if self._is_personal else []
        kinds = [*([] if self._history.experiment.algorithm.pools_data else ["client"]), *own]
        clients = self._history.experiment.data.clients
        return ["initial", FINAL, *rounds, *(f"{kind}:{client}" for kind in kinds for client in range(clients))]

    def default(self, client: int | None) -> str:
        """The model that is meant where none is named: the final one, or the one that a client uses."""
        return FINAL if client is None or not self._is_personal else f"own:{client}"

    def at(self, name: str) -> Point:
        """InvalidExperiment for a name that the run does not have, BrokenRun where files of it are missing."""
        if name == "initial":
            return Point(name, "initial model", self._initial, 0)
        if name == FINAL:
            return Point(name, "final model", self._final, self._last)
        kind, colon, rest = name.partition(":")
        if colon and kind == "round":
            return self._of_round(name, rest)
        if colon and kind == "client":
            return self._of_client(name, rest)
        if colon and kind == "own":
            return self._own(name, rest)
        if "/" in name or Path(name).is_dir():
            return self._of_another(name)
        shown = [known for known in self.names if ":" not in known or known.startswith("round")]
        close = nearest(name, [*shown, "client:0", *(["own:0"] if self._is_personal else [])])
        raise InvalidExperiment(
            f"{name!r} is no model of {self._history.directory}: {close}, or another run's directory"
        )

    def _of_round(self, name: str, rest: str) -> Point:
        round_ = _number(name, rest, "round:20")
        if round_ == 0:
            return Point(name, "initial model", self._initial, 0)
        if round_ == self._last:
            return Point(name, f"round {round_}", self._final, round_)
        return Point(name, f"round {round_}", self._history.model(round=round_), round_)

    def _of_client(self, name: str, rest: str) -> Point:
        client_text, at, round_text = rest.partition("@")
        client = self._client(name, client_text)
        if not at:
            work = self._next_round.after_the_last(client)
            label = f"client {client}"
        else:
            round_ = _number(name, round_text, "client:3@20")
            start = self.at(f"round:{round_}").module
            x = Layout.with_statistics(start).flatten(start)
            try:
                work = self._next_round.after(round_, x, client)
            except InvalidExperiment as error:
                raise InvalidExperiment(f"{name}: {error}; client:{client} is its model then") from error
            label = f"client {client} in round {round_ + 1}"
        module = self._history.model()
        Layout.with_statistics(module).write(module, work.model)
        return Point(name, label, module, work.round)

    def _own(self, name: str, rest: str) -> Point:
        client = self._client(name, rest)
        if not self._is_personal:
            algorithm = self._history.experiment.algorithm.name
            raise InvalidExperiment(
                f"{name}: {algorithm} gives clients no models of their own; client:{client} is this client's model "
                "after its work in a round"
            )
        return Point(name, f"client {client}'s own model", self._history.model(client), self._last)

    def _of_another(self, name: str) -> Point:
        module = load(Path(name)).model()
        directory = self._history.directory
        if Layout.of(module) != Layout.of(self._final):
            raise InvalidExperiment(f"{name}: its model has other parameters than that of {directory}")
        if not _same(_fixed(module), _fixed(self._final)):
            raise InvalidExperiment(f"{name}: what its model does not train differs from that of {directory}")
        return Point(name, name, module, None)

    def _client(self, name: str, text: str) -> int:
        clients = self._history.experiment.data.clients
        client = _number(name, text, f"{name.partition(':')[0]}:3")
        if client >= clients:
            raise InvalidExperiment(f"{name}: the run has clients 0 to {clients - 1}")
        return client

    @cached_property
    def _last(self) -> int:
        facts = read_model(self._history.directory)[1]
        return self._history.summary.rounds if facts is None else facts.round

    @cached_property
    def _initial(self) -> nn.Module:
        return initial_module(self._history.directory, self._history.experiment)

    @cached_property
    def _next_round(self) -> NextRound:
        return NextRound(self._history, self._run.setup)

    @cached_property
    def _is_personal(self) -> bool:
        return self._history.experiment.method.on(self._final).is_personal


def _number(name: str, text: str, example: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise InvalidExperiment(f"{name!r} names no model; write a number, as in {example}")
    return int(text)


def _fixed(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers that rounds do not change."""
    moving = {*Layout.of(module).names, *running_statistics(module)}
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: tensor.detach() for name, tensor in tensors.items() if name not in moving}


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())
