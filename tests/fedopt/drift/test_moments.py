"""The drift of second moments, against the moments that plain loops end with."""

from __future__ import annotations

import itertools

import pytest
import torch

from fedopt.algorithms.base import shares
from fedopt.algorithms.fedavg import FedAvg
from fedopt.drift.layers import Layers
from fedopt.drift.measuring import MeasurePlan
from fedopt.optimizers.local import LocalSettings
from fedopt.optimizers.moments import Moments
from fedopt.round.loop import Rounds, Rules
from fedopt.round.method import Method
from fedopt.round.selection import Terms
from tests.quadratics import Quadratics


@pytest.mark.parametrize("optimizer", ["adam", "amsgrad"])
@pytest.mark.parametrize("state", ["average", "average-v", "block-v", "reset"])
def test_it_is_the_ratio_and_the_cosine_of_the_clients_own(optimizer: str, state: str) -> None:
    q = Quadratics.random(4, sizes=(1, 2, 3, 1))
    local = LocalSettings(optimizer=optimizer, state=state, betas=(0.9, 0.5), lr=1e-9, steps=1, batch_size="full")
    if optimizer == "amsgrad":
        local = local.model_copy(update={"eps": 1e-9})
    initial, federation = q.federation(FedAvg(), local)
    plan = MeasurePlan(layers=Layers.whole(3))
    rounds = Rounds(Method(FedAvg(), moments=Moments.of(local)), federation, Rules(Terms.all_of(4), 0), lambda _: plan)
    _, work = rounds.play_one(initial)
    found = work.measured.moments
    if state == "reset":
        assert found is None
        return
    gradients = torch.einsum("nij,j->ni", *(torch.from_numpy(a) for a in (q.matrices, q.start)))
    v = 0.5 * (gradients - torch.from_numpy(q.vectors)).square()
    if state == "block-v":
        v = v.mean(1, keepdim=True).expand(4, 3)
    p = torch.tensor(shares("samples", list(q.sizes)), dtype=torch.float64)
    cosines = [torch.cosine_similarity(v[i], v[j], dim=0) for i, j in itertools.combinations(range(4), 2)]
    assert found is not None
    assert found.ratio == pytest.approx(float(p @ v.square().sum(1) / (p @ v).square().sum()), rel=1e-6)
    assert found.cosine == pytest.approx(float(torch.stack(cosines).mean()), rel=1e-6)
