"""Hooks of an own algorithm that are misspelled, or that return a shape that would be broadcast, are refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
import torch
from torch import Tensor

import tests.outside.algorithm
import tests.outside.optimizer
from fedopt.algorithms import ALGORITHMS
from fedopt.algorithms.base import Algorithm
from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.local_work import LocalStart
from fedopt.algorithms.scaffold import Scaffold
from fedopt.errors import InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.hooks import misspelled_hook
from fedopt.optimizers import OPTIMIZERS
from fedopt.optimizers.base import Optimizer
from fedopt.optimizers.local import LocalSettings
from fedopt.optimizers.sgd import Sgd
from fedopt.runs.directory import _names
from fedopt.vectors.layout import Vectors
from tests.quadratics import Quadratics

LOCAL = LocalSettings(lr=0.1, steps=2, batch_size="full")


class Returning(FedAvg):
    """Its hook `hook` returns `value` of the gradient, or of what has its shape."""

    hook: str = "correct"
    _value: Callable[[Tensor], Any]

    def start(self, local: LocalStart) -> Tensor | None:
        rows: Tensor | None = self._value(local.x.expand(3, -1)) if self.hook == "start" else None
        return rows

    def begin(self, local: LocalStart) -> Vectors:
        return {"v": self._value(local.x.expand(3, -1))} if self.hook == "begin" else {"x": local.x}

    def shift(self, prepared: Vectors) -> Tensor | None:
        rows: Tensor | None = self._value(prepared["x"].expand(3, -1)) if self.hook == "shift" else None
        return rows

    def correct(self, gradient: Tensor, y: Tensor, prepared: Vectors) -> Tensor:
        found: Tensor = self._value(gradient) if self.hook == "correct" else gradient
        return found


def rounds(hook: str, value: Callable[[Tensor], Any]) -> Tensor:
    """x after a round of three clients."""
    algorithm = Returning(hook=hook)
    algorithm._value = value
    state, _, _ = next(Quadratics.random(3).play(algorithm, LOCAL, 3))
    return state.x


def scalar(rows: Tensor) -> Tensor:
    return rows.sum()


def of_lanes(rows: Tensor) -> Tensor:
    return rows.sum(1)


@pytest.mark.parametrize(
    ("hook", "value", "told"),
    [
        ("correct", scalar, r"correct returned shape \[\], and must return \[3, \d+\], the shape of the gradient"),
        ("correct", of_lanes, r"correct returned shape \[3\], and must return \[3, \d+\]"),
        ("correct", lambda rows: rows[:1], r"correct returned shape \[1, \d+\]"),
        ("correct", lambda rows: None, r"correct returned NoneType, no tensor, and must return \[3, \d+\]"),
        ("shift", scalar, r"shift returned shape \[\], and must return \[\d+\] or \[3, \d+\], or None"),
        ("start", scalar, r"start returned shape \[\], and must return"),
        ("begin", of_lanes, r"begin returned v as shape \[3\], and must return \[\d+\] or \[3, \d+\]"),
    ],
)
def test_a_shape_that_would_be_broadcast_is_refused(hook: str, value: Callable[[Tensor], Any], told: str) -> None:
    with pytest.raises(InvalidExperiment, match=rf"^algorithm [\w.]+:Returning: {told}"):
        rounds(hook, value)


def test_rows_and_one_vector_for_all_lanes_are_taken() -> None:
    plain, _, _ = next(Quadratics.random(3).play(FedAvg(), LOCAL, 3))
    assert torch.equal(rounds("correct", lambda rows: rows), plain.x)
    for hook in ("start", "begin"):
        for value in (lambda rows: rows, lambda rows: rows[:1], lambda rows: rows[0]):
            assert torch.equal(rounds(hook, value), plain.x)
    for nothing in (lambda rows: 0 * rows, lambda rows: 0 * rows[:1], lambda rows: 0 * rows[0]):
        assert torch.equal(rounds("shift", nothing), plain.x)
    assert torch.equal(rounds("begin", lambda rows: rows.sum(1, keepdim=True)), plain.x)


class Misspelled(FedAvg):
    def corect(self, gradient: Tensor, y: Tensor, prepared: Vectors) -> Tensor:
        return gradient


class Inheriting(Misspelled):
    pass


class MisspelledSgd(Sgd):
    @property
    def moments_names(self) -> tuple[str, ...]:
        return ()


class WithHelpers(FedAvg):
    def corrected(self, gradient: Tensor) -> Tensor:
        return gradient

    def correct(self, gradient: Tensor, y: Tensor, prepared: Vectors) -> Tensor:
        return self._shifts(self.corrected(gradient))

    def _shifts(self, gradient: Tensor) -> Tensor:
        return gradient

    def proximal_term(self, y: Tensor) -> Tensor:
        return y


def test_a_misspelled_hook_is_refused_with_the_name_that_was_meant() -> None:
    for given in (Misspelled, Inheriting):
        with pytest.raises(InvalidExperiment) as raised:
            Experiment(algorithm={"name": f"{__name__}:{given.__name__}"})
        assert str(raised.value) == (
            f"algorithm.name: {given.__name__} has a method corect, which fedopt never calls; did you mean correct? "
            "(begin the name of a method of your own with _)"
        )
    with pytest.raises(InvalidExperiment, match=r"moments_names, .* did you mean moment_names\?"):
        Experiment(local={"optimizer": f"{__name__}:MisspelledSgd"})


def test_methods_beside_the_hooks_are_taken() -> None:
    Experiment(algorithm=WithHelpers())
    shipped = [(kind, Algorithm) for kind in ALGORITHMS.kinds()] + [(kind, Optimizer) for kind in OPTIMIZERS.kinds()]
    outside = [(tests.outside.algorithm.Nudged, Algorithm), *_members(tests.outside.optimizer)]
    assert [misspelled_hook(kind, base) for kind, base in [*shipped, *outside]] == [None] * len(shipped + outside)


def _members(module: object) -> list[tuple[type, type]]:
    found = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Optimizer)]
    return [(kind, Optimizer) for kind in found]


def test_a_run_directory_has_the_bare_name_of_an_own_class() -> None:
    class Größe(FedAvg):
        pass

    for algorithm, called in [(Scaffold(), "scaffold"), (WithHelpers(), "WithHelpers"), (Größe(), "Gr-e")]:
        names = _names(Experiment(algorithm=algorithm))
        first, second = next(names), next(names)
        assert re.fullmatch(rf"\d{{8}}-\d{{6}}-digits-{called}", first.name)
        assert datetime.strptime(first.name[:15], "%Y%m%d-%H%M%S")
        assert second.name == f"{first.name}-2"
