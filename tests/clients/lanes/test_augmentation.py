"""Random crops and flips against plain NumPy and a plain loop, and the same on any lanes, workers and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fedopt
from clients.deployed.bounds import check_before_training
from clients.lanes.backends import Backend
from clients.lanes.training import Execution, Job, LaneTrainer, LocalTraining
from fedopt.algorithms.fedavg import FedAvg
from fedopt.algorithms.scaffold import Scaffold
from fedopt.data.batches import plan_batches
from fedopt.drift.gradients import GRADIENT
from fedopt.errors import InvalidExperiment
from fedopt.optimizers.augmentation import Augmentation
from fedopt.optimizers.local import LocalSettings
from fedopt.round.federation import Broadcast, WorkOrder
from fedopt.seeding import Purpose, stream
from fedopt.task import Task
from fedopt.vectors.layout import Layout

SHAPE, CLASSES, SEED, ROUND = (2, 5, 6), 3, 7, 4
SIZES = [9, 4, 1]


def plain(image: np.ndarray, crop: int, row: int, column: int, mirrored: int) -> np.ndarray:
    """The window at (row, column) of the image [C, H, W] with zeros around it, and its mirror image."""
    _, height, width = image.shape
    wide = np.pad(image, ((0, 0), (crop, crop), (crop, crop)))
    window = wide[:, row : row + height, column : column + width]
    return window[:, :, ::-1] if mirrored else window


@pytest.mark.parametrize(("crop", "flip"), [(2, True), (1, False), (0, True)])
def test_images_are_those_of_plain_numpy(crop: int, flip: bool) -> None:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((40, *SHAPE))
    augmentation = Augmentation(crop, flip)
    drawn = augmentation.draw(1, 40, rng)[0]
    found = augmentation.apply(torch.from_numpy(images), torch.from_numpy(drawn)).numpy()
    expected = [plain(image, crop, *draws) for image, draws in zip(images, drawn.tolist(), strict=True)]
    assert np.array_equal(found, np.stack(expected))


def test_each_window_and_each_side_is_drawn_as_often() -> None:
    drawn = Augmentation(1, True).draw(300, 300, np.random.default_rng(0)).reshape(-1, 3)
    cells = np.bincount(drawn @ [6, 2, 1], minlength=18) / len(drawn)
    assert cells == pytest.approx(np.full(18, 1 / 18), rel=0.06)  # 5,000 of each: a deviation of 1.4%
    assert not Augmentation(1, False).draw(5, 5, np.random.default_rng(0))[..., 2].any()


def module() -> nn.Module:
    torch.manual_seed(0)
    flat = 3 * 3 * 4
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(flat, CLASSES)).double()


def data() -> tuple[Tensor, Tensor, list[np.ndarray]]:
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((sum(SIZES), *SHAPE)), rng.integers(0, CLASSES, sum(SIZES))
    return torch.from_numpy(x), torch.from_numpy(y), np.split(np.arange(sum(SIZES)), np.cumsum(SIZES)[:-1])


def trained(local: LocalSettings, backend: Backend) -> list[Tensor]:
    """What each client's model becomes, [P]; all are lanes side by side."""
    x, y, parts = data()
    task = Task(module())
    start = Layout.of(task.module).flatten(task.module)
    trainer = LaneTrainer(LocalTraining(task, FedAvg(), local, SEED), (x, y), Execution(backend, len(SIZES)))
    jobs = [Job(WorkOrder(client, None), part, {}) for client, part in enumerate(parts)]
    results = sorted(trainer.train(Broadcast(ROUND, start, {}), jobs), key=lambda result: result.order.client)
    return [start + result.up["dx"] for result in results]


@pytest.mark.parametrize("backend", ["stacked", "each", "vmap"])
@pytest.mark.parametrize("batch_size", [4, "full"])
def test_clients_train_as_in_a_plain_loop_over_augmented_images(backend: Backend, batch_size: int | str) -> None:
    local = LocalSettings(lr=0.1, epochs=2, batch_size=batch_size, crop=2, flip=True)
    x, y, parts = data()
    found = trained(local, backend)
    for client, part in enumerate(parts):
        model = module()
        plan = plan_batches(len(part), local, stream(SEED, Purpose.BATCHES, ROUND, client))
        rng = stream(SEED, Purpose.AUGMENTATION, ROUND, client)
        draws = np.zeros((*plan.positions.shape, 3), dtype=np.int64)
        draws[..., :2] = rng.integers(0, 5, (*plan.positions.shape, 2))
        draws[..., 2] = rng.integers(0, 2, plan.positions.shape)
        for positions, count, drawn in zip(plan.positions, plan.counts, draws, strict=True):
            rows = part[positions[:count]]
            images = [plain(x[row].numpy(), 2, *draw) for row, draw in zip(rows, drawn.tolist(), strict=False)]
            loss = F.cross_entropy(model(torch.from_numpy(np.stack(images))), y[rows])
            for parameter, gradient in zip(
                model.parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True
            ):
                parameter.data -= 0.1 * gradient
        assert torch.allclose(found[client], Layout.of(model).flatten(model), rtol=0, atol=1e-12)


def test_full_gradients_are_of_images_as_they_are() -> None:
    x, y, parts = data()
    found = []
    for crop in (0, 2):
        task = Task(module())
        start = Layout.of(task.module).flatten(task.module)
        local = LocalSettings(lr=0.1, steps=1, batch_size=2, crop=crop)
        trainer = LaneTrainer(
            LocalTraining(task, Scaffold(variant="full-gradient"), local, SEED), (x, y), Execution("stacked", 1)
        )
        zeros = torch.zeros_like(start)
        job = Job(WorkOrder(0, None), parts[0], {"c_i": zeros})
        (result,) = trainer.train(Broadcast(ROUND, start, {"c": zeros}, gradient=True), [job])
        found.append((result.up[GRADIENT].clone(), result.up["dx"].clone()))
    assert torch.equal(found[0][0], found[1][0])
    assert not torch.equal(found[0][1], found[1][1])


def experiment(**run: Any) -> fedopt.Experiment:
    return fedopt.Experiment(
        data={"clients": 4, "alpha": 0.5},
        model={"name": "logistic"},
        local={"crop": 1, "flip": True, "steps": 3},
        run={"rounds": 2, "participation": 1.0, "dtype": "float64", **run},
        metrics={"drift_every": 0, "clients_every": 0},
    )


def test_lanes_workers_and_a_pause_change_no_bit(tmp_path: Path) -> None:
    whole = fedopt.run(experiment(workers=1, lanes=4), tmp_path / "whole").weights
    narrow = fedopt.run(experiment(workers=2, lanes=1), tmp_path / "narrow").weights
    fedopt.run(experiment(workers=1, rounds=1), tmp_path / "resumed")
    resumed = fedopt.resume(tmp_path / "resumed", ["run.rounds=2"]).weights
    for name, weight in whole.items():
        assert torch.equal(weight, narrow[name])
        assert torch.equal(weight, resumed[name])


def test_what_cannot_be_augmented_is_refused(tmp_path: Path) -> None:
    features = experiment().replace(data={"name": "synthetic", "partition": "natural"})
    with pytest.raises(InvalidExperiment, match=r"local\.crop: it is for images .* samples of shape \(60,\)"):
        fedopt.run(features, tmp_path / "features")
    with pytest.raises(InvalidExperiment, match=r"local\.crop: with 8 pixels around an image of 8 x 8 a window could"):
        fedopt.run(experiment().replace(local={"crop": 8}), tmp_path / "wide")
    with pytest.raises(InvalidExperiment, match=r"flip.* lbfgs compares gradients of the same samples"):
        fedopt.Experiment(local={"optimizer": "lbfgs", "batch_size": "full", "flip": True})


def test_a_client_refuses_more_draws_than_fit_into_its_memory() -> None:
    local = {"batch_size": "full", "steps": 10**8}
    check_before_training(fedopt.Experiment(local=local), 1000, 10, 10**8)
    with pytest.raises(InvalidExperiment, match="minibatches of a round would take"):
        check_before_training(fedopt.Experiment(local={**local, "flip": True}), 1000, 10, 10**8)
