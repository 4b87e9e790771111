"""Experiments: every mistake gets one sentence with its place, and what is written reads back the same."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedopt.algorithms.fedavg import FedAvg
from fedopt.data.settings import DataSettings
from fedopt.errors import InvalidExperiment
from fedopt.experiment.experiment import Experiment, RunSettings
from fedopt.experiment.file import read_experiment, to_toml
from fedopt.optimizers.sgd import Sgd
from fedopt.runs.directory import read_run_experiment
from fedopt.runs.past_runs import read_run

MISTAKES = {
    "data.alpha=-1": "data.alpha: must be greater than 0, not -1",
    "data.alpha=0": "data.alpha: must be greater than 0, not 0",
    "data.alhpa=1": "data.alhpa: unknown key; did you mean alpha?",
    "data.name=mnst": "data.name: unknown data set 'mnst'; did you mean mnist?",
    "data.clients=0": "data.clients: must be greater than or equal to 1, not 0",
    "data.clients=2.5": "data.clients: must be a whole number, not 2.5",
    "data.partition=dirichle": "data.partition: unknown partition 'dirichle'; did you mean dirichlet?",
    "data.partition=natural": "data.partition: digits comes without clients of its own",
    "data.name=npz": "data.path: npz needs it: an .npz file",
    "data.download=1": "data.download: must be true or false, not 1",
    "model.name=resnet": "model.name: unknown model 'resnet'; did you mean resnet8?",
    "model.hidden=[10,0]": "model.hidden.1: must be greater than or equal to 1, not 0",
    "algorithm.name=scafold": "algorithm.name: unknown algorithm 'scafold'; did you mean scaffold?",
    "algorithm.name=[1]": "algorithm.name: must be a string, not [1]",
    "algorithm.variant=full-gradient": "algorithm.variant: unknown key",
    "algorithm.server_lr=0": "algorithm.server_lr: must be greater than 0, not 0",
    "algorithm.weighting=sample": "algorithm.weighting: unknown value 'sample'; did you mean samples?",
    "local.optimizer=adm": "local.optimizer: unknown optimizer 'adm'; did you mean adam?",
    "local.batch_size=0": "local.batch_size: a batch holds at least 1 sample, not 0",
    "local.batch_size=ful": "local.batch_size: must be a whole number or 'full', not 'ful'",
    "local.lr=fast": "local.lr: must be a number, not 'fast'",
    "local.lr=nan": "local.lr: must be a finite number, not nan",
    "local.momentum=1.0": "local.momentum: must be less than 1, not 1.0",
    "local.nesterov=true": "local.nesterov: needs momentum above 0",
    "run.rounds=true": "run.rounds: must be a whole number, not True",
    "run.cohort=21": "run.cohort: 21 a round, but data.clients is 20",
    "run.participation=1.5": "run.participation: must be less than or equal to 1, not 1.5",
    "run.device=gpu": "run.device: unknown value 'gpu'; did you mean cpu?",
    "run.lanes=0": "run.lanes: must be at least 1",
    "run.stop_at_target=true": "run.stop_at_target: needs target_accuracy",
    "ruin.seed=1": "ruin: unknown key; did you mean run?",
    "seed=1": "--set seed=1: an override is section.key=value",
    "run.seed": "--set run.seed: an override is section.key=value",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_sentence_with_its_place(mistake: str) -> None:
    with pytest.raises(InvalidExperiment) as caught:
        read_experiment(None, [mistake])
    assert str(caught.value).startswith(MISTAKES[mistake])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[data]\nalpha = ", "is not valid TOML"),
        ("data = 3", "data: must be a section with keys"),
        ("[local]\nsteps = 3\nepochs = 2", "local.steps: give epochs or steps, not both"),
        ("[run]\ncohort = 3\nparticipation = 0.5", "run.cohort: give participation or cohort, not both"),
        ("\x00", "is not valid TOML"),
    ],
)
def test_a_broken_file_gets_one_sentence(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "experiment.toml"
    file.write_text(text)
    with pytest.raises(InvalidExperiment) as caught:
        read_experiment(file)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["local.epochs=2", "local.steps=3"], "local.steps: give epochs or steps, not both"),
        (["local.steps=3", "local.epochs=2"], "local.steps: give epochs or steps, not both"),
        (["run.cohort=3", "run.participation=0.5"], "run.cohort: give participation or cohort, not both"),
        (["run.seed=1", "run.rounds=3", "run.seed=2"], "run.seed: given twice, as 1 and as 2; give it once"),
        (["run.stop_at_target=true", "run.stop_at_target=1"], "run.stop_at_target: given twice, as True and as 1"),
    ],
)
def test_overrides_that_contradict_each_other_are_refused(overrides: list[str], told: str, tmp_path: Path) -> None:
    (tmp_path / "experiment.toml").write_text("[run]\nrounds = 2\n")
    for file in (None, tmp_path / "experiment.toml"):
        with pytest.raises(InvalidExperiment) as caught:
            read_experiment(file, overrides)
        assert str(caught.value).startswith(told)
        assert "\n" not in str(caught.value)
    assert read_experiment(None, ["run.seed=3", "run.seed=3"]).run.seed == 3


def test_a_file_that_begins_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    file = tmp_path / "experiment.toml"
    file.write_bytes(b"\xef\xbb\xbf[run]\nseed = 7\n")
    assert read_experiment(file).run.seed == 7
    assert read_run(tmp_path).experiment.run.seed == 7
    assert read_run_experiment(tmp_path, []).run.seed == 7


@pytest.mark.parametrize(
    ("update", "told"),
    [
        ({"local": {"lr": -1.0}}, "local.lr: must be greater than 0, not -1.0"),
        ({"run": None}, "run: must be a section with keys"),
        ({"ruin": {}}, "ruin: unknown key; did you mean run?"),
        ({"data": DataSettings(clients=2), "run": RunSettings(cohort=3)}, "run.cohort: 3 a round"),
    ],
)
def test_a_copy_is_checked_as_the_original_was(update: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidExperiment) as caught:
        Experiment().model_copy(update=update)
    assert str(caught.value).startswith(told)
    section = Experiment(local={"momentum": 0.5}).local
    with pytest.raises(InvalidExperiment, match=r"^momentum: must be less than 1, not 1\.5"):
        section.model_copy(update={"momentum": 1.5})


def test_a_copy_has_what_was_given_and_what_is_new() -> None:
    first = Experiment(local={"momentum": 0.5}, model={"name": "torch.nn:Linear", "in_features": 4})
    local = first.local.model_copy(update={"steps": 7})
    assert local.optimizer == Sgd(momentum=0.5)
    assert (local.steps, local.epochs) == (7, None)
    copied = first.model_copy(update={"local": local, "algorithm": {"name": "scaffold"}})
    assert copied == Experiment(
        local={"momentum": 0.5, "steps": 7},
        model={"name": "torch.nn:Linear", "in_features": 4},
        algorithm={"name": "scaffold"},
    )
    assert first.model_copy() == first
    assert copied.model.model_copy(update={"in_features": 5}).model_dump()["in_features"] == 5


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidExperiment, match=r"there is no experiment file .*gone\.toml"):
        read_experiment(tmp_path / "gone.toml")


def test_an_override_displaces_its_alternative(tmp_path: Path) -> None:
    file = tmp_path / "experiment.toml"
    file.write_text("[local]\nepochs = 3\n[run]\nparticipation = 0.5\n")
    experiment = read_experiment(file, ["local.steps=7", "run.cohort=2"])
    assert (experiment.local.steps, experiment.local.epochs) == (7, None)
    assert (experiment.cohort_size, experiment.run.participation) == (2, None)


def test_an_overridden_name_displaces_the_keys_of_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "experiment.toml"
    text = '[algorithm]\nname = "scaffold"\nvariant = "full-gradient"\nserver_lr = 0.5\n[model]\nhidden = [3]\n'
    file.write_text(text)
    experiment = read_experiment(file, ["algorithm.name=fedavg", "model.name=resnet8", "model.groups=4"])
    assert experiment.algorithm.model_dump() == {**FedAvg().model_dump(), "server_lr": 0.5}
    assert experiment.model.given() == {"name": "resnet8", "groups": 4}
    with pytest.raises(InvalidExperiment, match=r"^model\.hidden: unknown key"):
        read_experiment(file, ["model.name=cnn", "model.hidden=[4]"])
    assert read_experiment(file, ["model.name=mlp"]).model.model_dump()["hidden"] == (3,)


@settings(max_examples=50, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "data": st.fixed_dictionaries({}, optional={"alpha": st.floats(1e-3, 1e3), "clients": st.integers(5, 50)}),
            "algorithm": st.sampled_from(
                [{"name": "fedavg", "server_lr": 0.5}, {"name": "scaffold", "variant": "full-gradient"}]
            ),
            "model": st.sampled_from(
                [{"name": "cnn"}, {"hidden": [3]}, {"name": "torch.nn:Linear", "in_features": 4, "x": [1]}]
            ),
            "local": st.fixed_dictionaries(
                {"optimizer": st.sampled_from(["sgd", "adam", "adamw", "sam"])},
                optional={
                    "p": st.sampled_from([1.0, 2.0, float("inf")]),
                    "betas": st.just([0.8, 0.9]),
                    "batch_size": st.just("full") | st.integers(1, 99),
                    "steps": st.integers(1, 9),
                    "clip": st.floats(0.1, 9),
                },
            ),
            "run": st.fixed_dictionaries({}, optional={"seed": st.integers(0, 2**62), "cohort": st.integers(1, 5)}),
        },
    )
)
def test_what_is_written_reads_back_the_same(sections: dict[str, Any]) -> None:
    experiment = Experiment(**sections)
    again = Experiment(**tomllib.loads(to_toml(experiment)))
    assert again == experiment
    assert to_toml(again) == to_toml(experiment)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40), st.text(max_size=10), st.text(max_size=20))
def test_no_override_brings_anything_but_an_experiment_or_its_sentence(section: str, key: str, value: str) -> None:
    for text in (f"{section}.{key}={value}", f"run.{key}={value}", f"local.lr={value}", f"data.{section}"):
        try:
            read_experiment(None, [text])
        except InvalidExperiment as error:
            assert str(error)


def test_keys_that_nothing_reads_are_pointed_out() -> None:
    adam = ["local.optimizer=adam", "local.lr=0.001"]
    experiment = read_experiment(None, [*adam, "local.momentum=0.9", "data.partition=iid"])
    assert experiment.notes() == ["local.momentum is not used by adam"]
    assert read_experiment(None, ["data.partition=iid", "data.alpha=0.5"]).notes() == ["data.alpha is not used by iid"]
    graphs = read_experiment(None, ["run.cuda_graphs=true"])
    assert graphs.notes() == []
    assert graphs.notes(deployed=True) == ["run.cuda_graphs is for virtual clients; deployed ones do not read it"]
    assert read_experiment(None).notes() == []


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"run": {"epochs": 3}}, "run.epochs: unknown key; did you mean local.epochs?"),
        ({"local": {"learning_rate": 0.1}}, "local.learning_rate: unknown key; did you mean local.lr?"),
        ({"algorithm": {"mu": 0.1}}, "algorithm.mu: unknown key; did you mean algorithm.mu of fednova, fedprox?"),
        ({"run": {"hidden": [3]}}, "run.hidden: unknown key; did you mean model.hidden of mlp, gru, lstm?"),
        (
            {"algorithm": "fedadamw", "local": {"optimizer": "sgd"}},
            "algorithm.name: fedadamw needs an adaptive optimizer, such as adamw; sgd is not adaptive",
        ),
    ],
)
def test_a_key_of_another_place_is_named(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidExperiment) as caught:
        Experiment(**sections)
    assert str(caught.value) == message


def test_an_algorithm_may_be_given_as_its_name_or_class() -> None:
    assert Experiment(algorithm="scaffold") == Experiment(algorithm={"name": "scaffold"})
    assert Experiment(algorithm=FedAvg) == Experiment(algorithm=FedAvg())
    with pytest.raises(InvalidExperiment, match=r"for example --set algorithm\.name=scaffold"):
        read_experiment(None, ["algorithm=scaffold"])


def test_an_experiment_prints_the_keys_that_it_was_given() -> None:
    experiment = Experiment(algorithm="scaffold", local={"optimizer": "adam", "lr": 0.001})
    assert str(experiment).startswith("Experiment(algorithm={'name': 'scaffold'}, local={")
    assert eval(repr(experiment), {"Experiment": Experiment}) == experiment
    assert repr(Experiment()) == "Experiment()"


def test_the_default_rate_is_pointed_out_where_another_one_is_usual() -> None:
    note = "local.lr is 0.05, which suits sgd; 0.001 is usual with sam(adam)"
    assert Experiment(local={"optimizer": "sam", "base": "adam"}).notes() == [note]
    assert Experiment(local={"optimizer": "adam", "lr": 0.05}).notes() == []
    assert Experiment(algorithm="diloco").notes() == []
