"""local.groups in experiments: what is refused, written and read, and what runs with them end with."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

import fedopt
from fedopt.errors import InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.experiment.file import read_experiment, to_toml
from fedopt.models.build import build_model
from fedopt.runs.setup import set_up
from tests.fedopt.optimizers.references import relative_error
from tests.fedopt.optimizers.test_groups import DECAY, FACTORS, GROUPS, Groups

RUN: dict[str, dict[str, Any]] = {
    "data": {"clients": 4},
    "model": {"name": "mlp", "hidden": [16, 8]},
    "local": {"steps": 3},
    "run": {"rounds": 2, "workers": 1, "dtype": "float64"},
    "metrics": {"drift_every": 0, "clients_every": 0},
}


def weights(tmp_path: Path, name: str, **changes: dict[str, Any]) -> dict[str, Tensor]:
    experiment = fedopt.Experiment(**{key: {**RUN[key], **changes.get(key, {})} for key in RUN})
    return dict(fedopt.run(experiment, tmp_path / name).weights)


def test_a_factor_of_zero_leads_where_model_freeze_leads(tmp_path: Path) -> None:
    groups = [{"parameters": ["1.*", "3.bias"], "lr_factor": 0.0}]
    still = weights(tmp_path, "still", local={"groups": groups})
    frozen = weights(tmp_path, "frozen", model={"freeze": ["1.*", "3.bias"]})
    assert all(relative_error(still[name], frozen[name]) < 1e-12 for name in frozen)
    initial = build_model(fedopt.Experiment(**RUN).model, (1, 8, 8), 10, 0).double().state_dict()
    assert all(still[name].equal(initial[name]) for name in ("1.weight", "1.bias", "3.bias"))
    assert not still["5.weight"].equal(initial["5.weight"])


def test_the_order_of_groups_changes_no_bit_nor_does_a_group_that_changes_nothing(tmp_path: Path) -> None:
    one, other = GROUPS[:2], [*GROUPS[1::-1], {"parameters": ["3.bias"], "lr_factor": 1.0}]
    local = {"momentum": 0.5, "weight_decay": DECAY}
    found = [weights(tmp_path, str(len(groups)), local={**local, "groups": groups}) for groups in (one, other)]
    assert all(found[0][name].equal(found[1][name]) for name in found[0])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"local": {"groups": [{}]}}, r"^local\.groups\.0\.parameters: give patterns of parameters' names"),
        (
            {"local": {"groups": [{"parameters": ["*"]}]}},
            r"^local\.groups\.0\.lr_factor: give a group lr_factor, weight_",
        ),
        ({"local": {"groups": [{"parameters": ["*"], "lr": 1.0}]}}, r"^local\.groups\.0\.lr: unknown key; .*lr_factor"),
        (
            {"local": {"groups": [{"parameters": ["*"], "lr_factor": -1.0}]}},
            r"^local\.groups\.0\.lr_factor: must be gre",
        ),
        (
            {"local": {"optimizer": "amsgrad", "groups": [{"parameters": ["*"], "weight_decay": 0.1}]}},
            r"^local\.groups: amsgrad has no weight_decay that may differ between parameters; leave weight_decay out",
        ),
        (
            {"local": {"optimizer": "larc", "groups": [{"parameters": ["*"], "weight_decay": 0.1}]}},
            r"^local\.groups: larc\(sgd\) has no weight_decay that may differ",
        ),
        (
            {"algorithm": {"name": "feddyn", "alpha": 1.0}, "local": {"lr": 1.5, "groups": FACTORS}},
            r"local\.lr, with the largest lr_factor of local\.groups, times algorithm\.alpha is 3, and must be below 2",
        ),
    ],
)
def test_groups_that_cannot_be_meant_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidExperiment, match=sentence):
        Experiment(**changes)


@pytest.mark.parametrize(
    "algorithm",
    [
        {"name": "fednova"},
        {"name": "fedcm"},
        {"name": "mofedsam"},
        {"name": "fedadamw"},
        {"name": "fedlada"},
        {"name": "mime"},
        {"name": "mimelite"},
        {"name": "scaffold", "anchor": 1.0},
        {"name": "fedlin", "rates": "by-steps"},
    ],
    ids=lambda keys: keys["name"],
)
def test_algorithms_that_compute_with_the_rate_refuse_others_and_take_weight_decay(algorithm: dict[str, Any]) -> None:
    sentence = rf"^local\.groups: {algorithm['name']} computes with one learning rate of all parameters; leave lr"
    with pytest.raises(InvalidExperiment, match=sentence):
        Experiment(algorithm=algorithm, local={"groups": FACTORS})
    if algorithm["name"] in ("fednova", "fedcm", "fedadamw"):  # which count weight decay as a part of the gradient
        Experiment(algorithm=algorithm, local={"groups": [{"parameters": ["*"], "weight_decay": 0.1}]})


@pytest.mark.parametrize(
    ("groups", "sentence"),
    [
        (
            [{"parameters": ["5.wieght"], "lr_factor": 0.5}],
            r"^local\.groups: no parameter is named '5\.wieght'; did you me",
        ),
        (
            [{"parameters": ["3.*", "!3.*"], "lr_factor": 0.5}],
            r"^local\.groups: the patterns \['3\.\*', '!3\.\*'\] leave",
        ),
        (
            [{"parameters": ["1.*"], "lr_factor": 0.5}],
            r"^local\.groups: '1\.\*' fits parameters that are frozen, and no",
        ),
        (
            [{"parameters": ["3.*"], "lr_factor": 0.5}, {"parameters": ["*.bias"], "weight_decay": 0.0}],
            r"^local\.groups: 3\.bias is in two groups; keep it out of one of them with \"!3\.bias\"",
        ),
    ],
)
def test_patterns_that_do_not_fit_the_model_are_refused_before_the_run(groups: Groups, sentence: str) -> None:
    model = {**RUN["model"], "freeze": ["1.*"]}
    with pytest.raises(InvalidExperiment, match=sentence):
        set_up(Experiment(**{**RUN, "model": model, "local": {"groups": groups}}))


def test_groups_are_written_and_read_and_set_on_the_command_line() -> None:
    experiment = read_experiment(
        None, ['local.groups=[{parameters = ["*.bias"], weight_decay = 0.0, lr_factor = 2.0}]']
    )
    (group,) = experiment.local.groups
    assert (group.parameters, group.lr_factor, group.weight_decay) == (("*.bias",), 2.0, 0.0)
    assert Experiment(**tomllib.loads(to_toml(experiment))) == experiment
    assert Experiment(**experiment.model_dump(mode="json", exclude_none=True)) == experiment
    assert experiment.replace(local={"lr": 0.1}).local.groups == experiment.local.groups


def test_adamw_whose_groups_decay_is_not_called_adam() -> None:
    local = {"optimizer": "adamw", "lr": 0.001}
    assert len(Experiment(local=local).notes()) == 1
    assert Experiment(local={**local, "groups": [{"parameters": ["*"], "weight_decay": 0.01}]}).notes() == []
