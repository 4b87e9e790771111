"""A deployed federation whose clients have BatchNorm ends with the bits of the simulation."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import fedopt
from tests.server.test_same_numbers import deployed
from tests.simulations.test_batch_norm import experiment


@pytest.mark.slow
@pytest.mark.deployment
@pytest.mark.parametrize(("policy", "algorithm"), [("average", "scaffold"), ("local", "fedavgm")])
def test_a_deployed_federation_ends_with_the_same_bits(policy: str, algorithm: str, tmp_path: Path) -> None:
    settings = experiment(policy, algorithm={"name": algorithm}, run={"rounds": 3, "cohort": 2})
    here, there = fedopt.run(settings, tmp_path / "here"), deployed(settings, tmp_path / "there")
    assert here.summary.weights_sha256 == there.summary.weights_sha256
    assert here.summary.final == there.summary.final
    assert [record.update_norm for record in here.records] == [record.update_norm for record in there.records]
    assert [record.drift for record in here.records] == [record.drift for record in there.records]
    assert torch.equal(here.weights["1.running_var"], there.weights["1.running_var"])
