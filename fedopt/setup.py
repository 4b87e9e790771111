"""What a run stands on before its first round: data, model, test set, on the device and in the type it asks for."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from fedopt.data.dataset import Dataset, load_dataset
from fedopt.device import choose_device
from fedopt.evaluation import Evaluator
from fedopt.experiment import Experiment
from fedopt.models.behavior import draws_in_training
from fedopt.models.build import build_model
from fedopt.parameters import Layout
from fedopt.task import Task


@dataclass(frozen=True)
class Setup:
    dataset: Dataset
    task: Task
    evaluator: Evaluator


def set_up(experiment: Experiment) -> Setup:
    """Reads, builds and moves; DataUnavailable or InvalidExperiment says what cannot be had."""
    settings = experiment.run
    device, dtype = choose_device(settings.device), getattr(torch, settings.dtype)
    dataset = load_dataset(experiment.data, settings.seed)
    module = build_model(experiment.model, dataset.sample_shape, dataset.classes, settings.seed)
    dataset = dataset.to(device, dtype)
    module = module.to(device, dtype)
    task = Task(module, draws=draws_in_training(module, dataset.x_train, experiment.model.name))
    evaluator = Evaluator(task, Layout.of(task.module), dataset.x_test, dataset.y_test, dataset.classes)
    return Setup(dataset, task, evaluator)
