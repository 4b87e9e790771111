"""Algorithms whose server steps along the clients' mean update by a server optimizer, `algorithm.server`.

    class FedAvg(ServerStepped):
        def advance(self, round_, x, server, totals):
            return self._step(x, totals.mean("dx"), server)

An algorithm with server state of its own adds it to that of the optimizer, as SCAFFOLD does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import ModelWrapValidatorHandler, model_validator
from torch import Tensor

from fedopt.algorithms.base import Algorithm
from fedopt.composite import Composite, FamilyField
from fedopt.family import Family
from fedopt.section import wrong
from fedopt.server_optimizers import SERVER_OPTIMIZERS
from fedopt.server_optimizers.base import ServerOptimizer
from fedopt.server_optimizers.sgd import ServerSgd
from fedopt.vectors.layout import Vectors

PREFIX = "server."
"""Names of the optimizer's vectors among those of the server begin with this."""


def stepped_by(default: str) -> tuple[FamilyField, ...]:
    """The families of an algorithm with another default server optimizer."""
    return (FamilyField("server", "server", SERVER_OPTIMIZERS, default),)


class ServerStepped(Composite, Algorithm):
    families: ClassVar[tuple[FamilyField, ...]] = stepped_by("sgd")
    only_server: ClassVar[str] = ""
    """The server optimizer that the algorithm's name stands for; empty where any will do."""
    server_defaults: ClassVar[Mapping[str, Any]] = {}
    """Defaults of keys of the server optimizer under this algorithm, where they are others."""

    server: ServerOptimizer = ServerSgd()
    """The server optimizer: how the global model moves along the clients' mean update."""

    @model_validator(mode="wrap")
    @classmethod
    def _with_server_defaults(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(given, Mapping) or isinstance(given.get("server"), Family):  # an object has all of its keys
            return handler(given)
        missing = {key: value for key, value in cls.server_defaults.items() if key not in given}
        algorithm = handler({**given, **missing})
        algorithm.forget_given(missing)
        return algorithm

    @model_validator(mode="after")
    def _is_what_its_name_says(self) -> Self:
        if self.only_server and self.server.name != self.only_server:
            remedy = f"leave out algorithm.server, or choose fedavg with algorithm.server = {self.server.name}"
            raise wrong("server", f"{self.name} steps with {self.only_server}, not {self.server.name}; {remedy}")
        return self

    def server_state(self, x: Tensor) -> Vectors:
        return {f"{PREFIX}{name}": vector for name, vector in self.server.state(x).items()}

    def _step(self, x: Tensor, direction: Tensor, server: Vectors) -> tuple[Tensor, Vectors]:
        """The next x, and the optimizer's vectors among those of the server; `direction` is the mean update."""
        own = {name.removeprefix(PREFIX): vector for name, vector in server.items() if name.startswith(PREFIX)}
        x_new, own_new = self.server.step(x, direction, own, self.server_lr)
        return x_new, {f"{PREFIX}{name}": vector for name, vector in own_new.items()}
