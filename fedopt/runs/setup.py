"""Data, model and test set of a run, on its device and in its dtype, before the first round."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fedopt.data.dataset import Dataset
from fedopt.data.fingerprint import fingerprint_data
from fedopt.data.loading import load_dataset
from fedopt.device import choose_device
from fedopt.errors import InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.models.build import build_model
from fedopt.models.tasks import make_task, task_notes
from fedopt.optimizers.groups import check_groups
from fedopt.runs.evaluation import Evaluator
from fedopt.task import Task
from fedopt.vectors.layout import Layout


@dataclass(frozen=True)
class Problem:
    """What a run learns, and how its models are evaluated. It holds no training data."""

    task: Task
    evaluator: Evaluator


@dataclass(frozen=True)
class Setup:
    dataset: Dataset
    targets: Tensor
    """What the model is to predict for the training samples: the data's labels, or a class at every position."""
    problem: Problem
    data_sha256: str
    """The data set's fingerprint, taken before it was moved and cast."""
    notes: tuple[str, ...] = ()
    """Sentences about the data and the model that the user may not know."""

    @property
    def vector_bytes(self) -> int:
        """Bytes of a vector of the model's trainable parameters."""
        return sum(p.numel() * p.element_size() for p in self.problem.task.module.parameters() if p.requires_grad)


def set_up(experiment: Experiment) -> Setup:
    """Reads the data and builds the model; DataUnavailable or InvalidExperiment says what is wrong."""
    settings = experiment.run
    device, dtype = choose_device(settings.device), getattr(torch, settings.dtype)
    dataset = load_dataset(experiment.data, settings.seed)
    of_module: list[str] = []
    module = build_model(experiment.model, dataset.sample_shape, dataset.classes, settings.seed, of_module)
    check_groups(experiment.local.groups, module)
    experiment.local.check_samples(dataset.sample_shape)
    for samples in (dataset.x_train, dataset.x_test):
        experiment.model.check_samples(samples, dataset.classes)
    targets_of = experiment.model.targets_of
    notes = [*dataset.notes_on(*(targets_of(*one) for one in (dataset.train, dataset.test))), *of_module]
    data_sha256 = fingerprint_data(dataset)
    dataset = dataset.to(device, dtype)
    module = module.to(device, dtype)
    targets, of_tests = targets_of(*dataset.train), targets_of(*dataset.test)
    task = make_task(experiment.model, module, dataset.x_train, targets)
    evaluator = Evaluator(task, Layout.with_statistics(task.module), dataset.x_test, of_tests, dataset.classes)
    notes += task_notes(experiment.model, module, dataset.has_numbers)
    if settings.target_accuracy is not None and evaluator.predicts_numbers:
        raise InvalidExperiment("run.target_accuracy: the data have numbers to predict, which have no accuracy")
    return Setup(dataset, targets, Problem(task, evaluator), data_sha256, tuple(notes))
