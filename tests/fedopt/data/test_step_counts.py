"""How much local work is drawn for whom, against the distributions that the settings name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedopt
from fedopt.data.step_counts import StepCounts
from fedopt.errors import InvalidExperiment
from fedopt.optimizers.local import LocalSettings

DRAWS = 4000
"""Of clients 0 to 19 in rounds 1 to 200."""


def shares(**local: Any) -> dict[int, float]:
    """How often each number of steps is drawn by a client with 7 samples, whose epoch has 3 batches."""
    counts = StepCounts(LocalSettings(batch_size=3, **local), seed=3)
    found = Counter(counts.at(7, round_, client) for round_ in range(1, 201) for client in range(20))
    return {steps: times / DRAWS for steps, times in sorted(found.items())}


@pytest.mark.parametrize(
    ("local", "expected"),
    [
        ({"steps": "uniform(2, 5)"}, {2: 1 / 4, 3: 1 / 4, 4: 1 / 4, 5: 1 / 4}),
        ({"epochs": "uniform(1, 3)"}, {3: 1 / 3, 6: 1 / 3, 9: 1 / 3}),
        # Half of the clients are stragglers, for whom every part is equally likely.
        ({"steps": 4, "stragglers": 0.5}, {1: 1 / 8, 2: 1 / 8, 3: 1 / 8, 4: 5 / 8}),
        ({"epochs": 2, "stragglers": 1.0}, {3: 1 / 2, 6: 1 / 2}),
        # Of 1 or 2, drawn first: P(1) = 1/2 + 1/2 (0.4 * 1/2).
        ({"steps": "uniform(1, 2)", "stragglers": 0.4}, {1: 0.6, 2: 0.4}),
    ],
)
def test_work_is_drawn_with_these_probabilities(local: dict[str, Any], expected: dict[int, float]) -> None:
    found = shares(**local)
    assert found.keys() == expected.keys()
    for steps, share in expected.items():
        assert abs(found[steps] - share) < 4 * np.sqrt(share * (1 - share) / DRAWS)


def test_draws_of_clients_and_rounds_are_independent() -> None:
    counts = StepCounts(LocalSettings(steps="uniform(1, 9)"), seed=0)
    drawn = np.array([[counts.at(1, round_, client) for client in range(100)] for round_ in range(1, 101)])
    by_round, by_client = np.corrcoef(drawn), np.corrcoef(drawn.T)
    for correlations in (by_round, by_client):
        apart = correlations[~np.eye(100, dtype=bool)]
        assert abs(apart.mean()) < 0.005
        assert abs(apart).max() < 0.55  # 4950 pairs of 100 draws each, standard deviation 0.1


def digest(out: Path, *, run: Mapping[str, Any] | None = None, **local: Any) -> str:
    experiment = fedopt.Experiment(
        data={"clients": 6},
        model={"name": "mlp", "hidden": [8]},
        algorithm={"name": "scaffold", "variant": "full-gradient"},
        local={"batch_size": 32, **local},
        run={"rounds": 3, "cohort": 4, "workers": 1, "seed": 2, **(run or {})},
    )
    return fedopt.run(experiment, out).summary.weights_sha256


def test_draws_leave_minibatches_as_they_are(tmp_path: Path) -> None:
    plain = digest(tmp_path / "plain", epochs=2)
    assert digest(tmp_path / "range", epochs="uniform(2, 2)") == plain
    assert digest(tmp_path / "no-part", epochs=2, stragglers=1e-12) == plain


def test_drawn_work_is_the_same_on_any_engine(tmp_path: Path) -> None:
    """Lanes, workers, and a run that was resumed; deployed clients are in tests/server/test_same_numbers.py."""
    local: dict[str, Any] = {"epochs": "uniform(1, 4)", "stragglers": 0.5}
    found = {
        digest(tmp_path / "lanes", **local),
        digest(tmp_path / "alone", **local, run={"lanes": 1}),
        digest(tmp_path / "workers", **local, run={"workers": 2, "lanes": 2}),
    }
    digest(tmp_path / "resumed", **local, run={"rounds": 1})
    found.add(fedopt.resume(tmp_path / "resumed", ["run.rounds=3"]).summary.weights_sha256)
    assert len(found) == 1
    assert digest(tmp_path / "fixed", epochs=4) not in found


@pytest.mark.parametrize(
    ("local", "complaint"),
    [
        (
            {"epochs": "uniform(0, 3)"},
            "epochs: must be \"uniform(LOW, HIGH)\" with 1 <= LOW <= HIGH, not 'uniform(0, 3)'",
        ),
        (
            {"steps": "uniform(5, 3)"},
            "steps: must be \"uniform(LOW, HIGH)\" with 1 <= LOW <= HIGH, not 'uniform(5, 3)'",
        ),
        ({"steps": "normal(5)"}, "steps: must be a whole number or \"uniform(LOW, HIGH)\", not 'normal(5)'"),
        ({"epochs": True}, 'epochs: must be a whole number or "uniform(LOW, HIGH)", not True'),
        ({"epochs": 0}, "epochs: must be greater than or equal to 1, not 0"),
        ({"epochs": "uniform(1, 3)", "steps": 2}, "steps: give epochs or steps, not both"),
        ({"stragglers": 1.5}, "stragglers: must be less than or equal to 1, not 1.5"),
    ],
)
def test_amounts_that_are_none_are_refused_in_a_sentence(local: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidExperiment) as error:
        fedopt.Experiment(local=local)
    assert str(error.value) == f"local.{complaint}"


def test_a_range_is_written_as_it_is_read() -> None:
    experiment = fedopt.Experiment(local={"epochs": " uniform( 1,5 )"})
    assert experiment.local.epochs == "uniform(1, 5)"
    assert fedopt.Experiment(**experiment.model_dump()) == experiment
    assert experiment.replace(local={"steps": 3}).local.epochs is None


def test_stragglers_without_a_part_to_do_are_pointed_out() -> None:
    note = "local.stragglers has no effect: there is no part of local.epochs = 1"
    assert note in fedopt.Experiment(local={"epochs": 1, "stragglers": 0.5}).notes()
    assert fedopt.Experiment(local={"epochs": 2, "stragglers": 0.5}).notes() == []
