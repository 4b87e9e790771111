"""BatchNorm's part of a model's vectors: `model.batchnorm`.

A model with running statistics is a vector [P + S]: the trained parameters, and behind them the mean and the variance
of each layer. Algorithms, optimizers and measures see the first P entries alone. Vectors of an algorithm travel with S
zeros at the end, except for the first one that goes up, under `average`: its last entries are the statistics that the
client ended with. They need no place of their own on the wire, in checkpoints or in workers' memory.

average   x_stat <- sum p_i s_i / sum p_i over the cohort, whatever the algorithm does with the other entries;
          s_i starts at x_stat and is updated by the client's forward passes, one for each step
local     each client keeps scale, shift and statistics, which replace those of x when it trains and when it is
          evaluated; they never leave it, and those of x stay as they were built
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fedopt.algorithms.base import Algorithm
from fedopt.models.batchnorm import BatchNormPolicy
from fedopt.optimizers.local import LocalSettings
from fedopt.vectors.layout import VARIANCE, Layout, Vectors
from fedopt.vectors.totals import Totals

OWN = "batchnorm.own"
"""The name of what a client keeps under `local`: its entries of x, zeros elsewhere, [P + S]."""

STATISTICS = "statistics"
"""The name under which the length of a client's statistics is bounded."""

PLAIN_STEPS = ("start", "begin", "moments", "shift", "correct", "gradient", "push", "client_state")
"""Hooks that an algorithm under `local` does not have: they work with entries of x that its clients do not use."""


@dataclass(frozen=True)
class BatchNorms:
    """How a model's vector is divided."""

    policy: BatchNormPolicy = "refuse"
    layout: Layout = field(default_factory=lambda: Layout((), ()))
    """Of the whole vector; empty where there are no statistics."""
    carrier: str = ""
    """The vector that goes up with the statistics under `average`: the algorithm's first."""
    own_names: frozenset[str] = frozenset()
    """Names of BatchNorm's trained parameters and of its statistics."""

    @classmethod
    def of(cls, policy: BatchNormPolicy, module: nn.Module, algorithm: Algorithm) -> BatchNorms:
        layout = Layout.with_statistics(module)
        if policy == "refuse" or not layout.statistics:
            return NO_BATCH_NORMS
        owned = {
            id(tensor)
            for layer in module.modules()
            if isinstance(layer, nn.modules.batchnorm._BatchNorm)
            for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False))
        }
        named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        own_names = frozenset(name for name in layout.names if id(named[name]) in owned)
        return cls(policy, layout, algorithm.sends_up[0], own_names)

    def __bool__(self) -> bool:
        """Whether there are statistics."""
        return self.layout.statistics > 0

    @property
    def is_personal(self) -> bool:
        """Whether clients use models of their own."""
        return self.policy == "local"

    @property
    def size(self) -> int:
        """P, the entries that are trained."""
        return self.layout.trained.size

    def trained(self, vector: Tensor) -> Tensor:
        """[..., P] of [..., P + S]."""
        return vector[..., : self.size] if self else vector

    def statistics(self, vector: Tensor) -> Tensor:
        """[..., S] of [..., P + S]."""
        return vector[..., self.size :]

    def cut(self, vectors: Vectors) -> Vectors:
        return {name: self.trained(vector) for name, vector in vectors.items()} if self else vectors

    def widened(self, vector: Tensor, statistics: Tensor | None = None) -> Tensor:
        """[..., P + S] of [..., P], with these statistics behind it, or with zeros."""
        if not self:
            return vector
        if statistics is None:
            statistics = vector.new_zeros(*vector.shape[:-1], self.layout.size - self.size)
        return torch.cat([vector, statistics], dim=-1)

    def widen(self, vectors: Vectors) -> Vectors:
        return {name: self.widened(vector) for name, vector in vectors.items()} if self else vectors

    def of_totals(self, totals: Totals) -> Totals:
        """What the algorithm sees of the totals."""
        return TrainedTotals(totals, self) if self else totals

    def apart(self, up: Vectors) -> Vectors:
        """What a client sent up, its statistics by a name of their own."""
        if not self or self.policy != "average" or self.carrier not in up:
            return self.cut(up)
        return {**self.cut(up), STATISTICS: self.statistics(up[self.carrier])}

    def advanced(self, x: Tensor, trained: Tensor, totals: Totals) -> Tensor:
        """The model after x [P + S], from its trained entries [P], and from the totals of what went up."""
        if not self:
            return trained
        return self.widened(trained, self.statistics(totals.mean(self.carrier) if self.policy == "average" else x))

    def negative_variance(self, sent: Vectors) -> str | None:
        """The name of a variance with an entry below zero in what a client sent up, [P + S] each."""
        views = self.layout.split(sent[self.carrier]) if self and self.carrier in sent else {}
        for name, view in views.items():
            if name.rpartition(".")[2] == VARIANCE and not bool((view >= 0).all()):
                return name
        return None

    def own(self, like: Tensor) -> Tensor:
        """Which entries of a vector [P + S] are BatchNorm's."""
        entries = torch.zeros_like(like, dtype=torch.bool)
        for name, view in self.layout.split(entries).items():
            view.fill_(name in self.own_names)
        return entries

    def client_state(self, x: Tensor) -> Vectors:
        """What each client keeps, before its first round."""
        if not self or self.policy != "local":
            return {}
        return {OWN: torch.where(self.own(x), x, torch.zeros_like(x))}

    def personal(self, x: Tensor, state: Vectors) -> Tensor:
        """The model of a client under `local`, [P + S]."""
        return torch.where(self.own(x), state[OWN], x)


NO_BATCH_NORMS = BatchNorms()


class TrainedTotals(Totals):
    """Totals of vectors without the entries of statistics."""

    def __init__(self, totals: Totals, norms: BatchNorms) -> None:
        self._totals, self._norms, self.share = totals, norms, totals.share

    def names(self) -> frozenset[str]:
        return self._totals.names()

    def mean(self, name: str) -> Tensor:
        return self._norms.trained(self._totals.mean(name))

    def precise_mean(self, name: str) -> Tensor:
        return self._norms.trained(self._totals.precise_mean(name))

    def sum(self, name: str) -> Tensor:
        return self._norms.trained(self._totals.sum(name))

    def number(self, name: str) -> float:
        return self._totals.number(name)

    def numbers(self) -> frozenset[str]:
        return self._totals.numbers()


def objection(policy: BatchNormPolicy, algorithm: Algorithm, local: LocalSettings, *, stages: bool) -> str | None:
    """Why BatchNorm cannot be trained by this policy, as a clause; None if it can."""
    name = algorithm.name
    if policy == "refuse":
        return None
    if not algorithm.sends_up:
        return f"{name} sends no vector up, with which statistics could travel; choose another algorithm"
    if algorithm.is_personal:
        return f"{name} gives clients models of their own, without statistics of their own; choose another algorithm"
    if policy == "average":
        told = "a channel's stages would change the statistics, too, and a variance may not fall below zero"
        return f'{told}; leave out channel.stages, or choose "local"' if stages else None
    if algorithm.pools_data:
        return f'{name} has one client, whose BatchNorm would stay with it; choose "average"'
    kind = type(algorithm)
    if algorithm.surveys or any(getattr(kind, hook) is not getattr(Algorithm, hook) for hook in PLAIN_STEPS):
        told = "it is for algorithms whose clients take plain local steps, such as fedavg and fedadam"
        return f'with "local", {told}; with {name}, choose "average"'
    if local.state not in ("reset", "keep"):
        told = f"local.state = {local.state} averages the moments of BatchNorm's parameters"
        return f'{told}, which never leave a client with "local"; choose reset or keep'
    return None
