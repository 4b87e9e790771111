"""FedPer: Arivazhagan, Aggarwal, Singh, Choudhary, "Federated Learning with Personalization Layers", 2019
(arXiv:1912.00818), Algorithms 1 and 2.

    W_B: the base layers, shared;  W_P,i: the personalization layers of client i, which it never sends
    each round, each chosen client i:  (W_B,i, W_P,i) <- local steps from (W_B, W_P,i)
    server:                            W_B <- W_B + server_lr * sum p_i (W_B,i - W_B) / sum p_i

Both parts are trained together, in the same steps. The client's state is the offset of its W_P,i from the server's,
which stay where they were initialized, so that all clients begin with the same personalization layers.

Traps: `test_accuracy` is that of the shared layers with untrained personalization layers and says nothing; the
accuracies of the clients' own models are the result. A client that has not been selected yet has such layers too. The
private entries of an update are zeros: they take no part in the mean, but they travel.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.local_work import Finished, LocalStart, LocalWork
from fedopt.errors import InvalidExperiment
from fedopt.registry import nearest
from fedopt.vectors.layout import RowLayout, Vectors

LAST = "last"
"""What stands for the model's last layer among the patterns."""


class FedPer(FedAvg):
    private: tuple[str, ...] = Field((LAST,), strict=False)
    """Parameters that each client keeps for itself: "last" for those of the model's last layer, or patterns of their
    names such as "head.*"; an empty list keeps none."""

    def client_state(self, x: Tensor) -> Vectors:
        return {"own": torch.zeros_like(x)}

    def start(self, local: LocalStart) -> Tensor:
        return local.x + local.state["own"]

    def finish(self, work: LocalWork) -> Finished:
        private = private_entries(self.private, work.layout, work.x)
        zero = torch.zeros_like(work.displacement)
        return Finished(
            up={"dx": torch.where(private, zero, work.displacement)},
            state={"own": torch.where(private, work.displacement, zero)},
        )

    def personal(self, x: Tensor, state: Vectors) -> Tensor:
        return x + state["own"]


def private_entries(patterns: Sequence[str], layout: RowLayout, like: Tensor) -> Tensor:
    """Which entries of a row are a private parameter's, [Q]."""
    entries = torch.zeros_like(like, dtype=torch.bool)
    views = layout.views(entries)
    for name in private_names(patterns, layout.layout.names):
        views[name].fill_(True)
    return entries


def private_names(patterns: Sequence[str], names: Sequence[str]) -> list[str]:
    """The parameters' names that are meant; InvalidExperiment for a pattern that fits none."""
    found: set[str] = set()
    for pattern in patterns:
        fitting = _of_last_layer(names) if pattern == LAST else fnmatch.filter(names, pattern)
        if not fitting:
            raise InvalidExperiment(f"algorithm.private: no parameter is named {pattern!r}; {nearest(pattern, names)}")
        found.update(fitting)
    return [name for name in names if name in found]


def _of_last_layer(names: Sequence[str]) -> list[str]:
    """The parameters of the module that the last parameter belongs to."""
    layer = names[-1].rpartition(".")[0]
    return [name for name in names if name.rpartition(".")[0] == layer]
