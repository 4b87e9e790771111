"""The line about an experiment that the commands print first."""

from __future__ import annotations

from typing import Any

import pytest

from fedopt.commands.reporting import describe_experiment
from fedopt.experiment.experiment import Experiment
from fedopt.optimizers.adam import Adam
from fedopt.optimizers.sam import Sam
from tests.outside.optimizer import Signum


@pytest.mark.parametrize(
    ("local", "printed"),
    [
        ({}, "mlp, sgd lr 0.05, 5 epochs"),
        ({"optimizer": "adam", "lr": 0.001, "steps": 1}, "mlp, adam lr 0.001, 1 step"),
        ({"optimizer": "sam", "base": "adam"}, "mlp, sam(adam) lr 0.05"),
        ({"optimizer": Sam(base=Adam(), rho=0.1)}, "mlp, sam(adam) lr 0.05"),
        ({"optimizer": Signum(mean=0.5)}, "mlp, tests.outside.optimizer:Signum lr 0.05"),
        ({"optimizer": Signum}, "mlp, tests.outside.optimizer:Signum lr 0.05"),
    ],
)
def test_an_optimizer_is_printed_by_its_name(local: dict[str, Any], printed: str) -> None:
    assert printed in describe_experiment(Experiment(local=local))
