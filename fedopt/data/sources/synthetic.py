"""Synthetic(a, b), the logistic data of FedProx: Li, Sahu, Zaheer, Sanjabi, Talwalkar, Smith, "Federated
Optimization in Heterogeneous Networks", MLSys 2020 (arXiv:1812.06127), section 5.1.

Client k draws a model W, b around u_k ~ N(0, a) and inputs around v_k whose entries are N(B_k, 1) with
B_k ~ N(0, b); a and b are standard deviations, as in the authors' code. Labels are argmax(W x + b).
Client sizes are 50 + lognormal(4, 2). A tenth of each client's samples forms the common test set.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field

from fedopt.data.dataset import Dataset
from fedopt.data.sources.base import Source
from fedopt.seeding import Purpose, stream

FEATURES, CLASSES = 60, 10
LARGEST_CLIENT = 20_000
"""The lognormal has no upper end; a client beyond this is cut, lest one draw fill the memory."""


BYTES_OF_A_CLIENT = 600_000
"""About what a client adds to the data: 400 samples of 60 numbers, a few times over."""


class Synthetic(Source):
    names_clients: ClassVar[bool] = True
    is_drawn: ClassVar[bool] = True

    a: float = Field(1.0, ge=0)
    """How far the clients' models lie apart."""
    b: float = Field(1.0, ge=0)
    """How far the clients' inputs lie apart."""

    def load(self, clients: int, seed: int) -> Dataset:
        deviations = np.arange(1, FEATURES + 1) ** -0.6  # the covariance is diag(j^-1.2)
        inputs, labels, in_test = [], [], []
        for client in range(clients):
            rng = stream(seed, Purpose.DATA, client)
            size = min(50 + int(rng.lognormal(4.0, 2.0)), LARGEST_CLIENT)
            u, centre = rng.normal(0.0, self.a), rng.normal(0.0, self.b)
            weights, bias = rng.normal(u, 1.0, (FEATURES, CLASSES)), rng.normal(u, 1.0, CLASSES)
            v = rng.normal(centre, 1.0, FEATURES)
            x = v + deviations * rng.standard_normal((size, FEATURES))
            inputs.append(x)
            labels.append((x @ weights + bias).argmax(axis=1))
            in_test.append(np.arange(size) < size // 10)  # samples of a client are exchangeable
        x, y, test = np.concatenate(inputs).astype(np.float32), np.concatenate(labels), np.concatenate(in_test)
        owner = np.repeat(np.arange(clients), [len(part) for part in labels])
        return Dataset(
            torch.from_numpy(x[~test]),
            torch.from_numpy(y[~test]),
            torch.from_numpy(x[test]),
            torch.from_numpy(y[test]),
            classes=CLASSES,
            class_names=tuple(str(label) for label in range(CLASSES)),
            natural_clients=tuple(np.flatnonzero(owner[~test] == client) for client in range(clients)),
            test_clients=owner[test],
        )

    def generated_bytes(self, clients: int) -> int:
        return clients * BYTES_OF_A_CLIENT
