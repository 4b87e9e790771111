"""Losses at many points: those of one call after the other of a plain loop, whatever the threads and the chunks."""

from __future__ import annotations

import re
import threading
import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simulations.analysis.landscape.work import Evaluations, Work
from simulations.analysis.runs.evaluation import Evaluation, PointSet
from simulations.analysis.runs.objective import Objective
from simulations.analysis.runs.pooling import PooledConvolution, PoolingByMaxima, pooling_by_maxima, quick
from simulations.commands import points_done
from tests.simulations.analysis.landscape.known import silent


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Sequential(nn.Conv2d(3, 4, 2), nn.MaxPool2d((2, 1)), nn.Tanh()),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


SAMPLES = 300


def problem() -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(1)
    return torch.randn(SAMPLES, 1, 11, 9, generator=source), torch.randint(0, 5, (SAMPLES,), generator=source)


def points(size: int) -> PointSet:
    source = torch.Generator().manual_seed(2)
    base, first, second = torch.randn(3, size, generator=source, dtype=torch.float64)
    return PointSet(0.3 * base, torch.stack([first, second]), torch.randn(17, 2, generator=source, dtype=torch.float64))


def by_a_plain_loop(x: Tensor, y: Tensor, of: PointSet) -> list[float]:
    """In float64: a new module for each point, all samples at once."""
    losses = []
    for coordinates in of.coordinates:
        module = network().double()
        w = of.base + coordinates[0] * of.directions[0] + coordinates[1] * of.directions[1]
        nn.utils.vector_to_parameters(w, module.parameters())
        with torch.no_grad():
            losses.append(float(F.cross_entropy(module(x.double()), y)))
    return losses


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 3e-6)])
def test_losses_are_those_of_a_plain_loop(threads: int, dtype: torch.dtype, tolerance: float) -> None:
    x, y = problem()
    both = {
        "training": Objective(network(), F.cross_entropy, x, y),
        "client": Objective(network(), F.cross_entropy, x[:40], y[:40]),
    }
    of = points(len(both["training"].start))
    done: list[int] = []
    found = Evaluation(both, dtype, threads).at(of, ["training", "client"], done.append)
    assert sum(done) == len(of) == 17
    for name, part in {"training": SAMPLES, "client": 40}.items():
        assert found[name] == pytest.approx(by_a_plain_loop(x[:part], y[:part], of), rel=tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_points_losses_do_not_depend_on_the_threads(dtype: torch.dtype) -> None:
    x, y = problem()
    objective = {"training": Objective(network(), F.cross_entropy, x, y)}
    of = points(len(objective["training"].start))
    alone, together = (Evaluation(objective, dtype, threads).at(of, ["training"], silent) for threads in (1, 4))
    assert alone == together


def test_the_time_of_a_loss_and_the_threads_of_torch_afterwards() -> None:
    x, y = problem()
    objective = Objective(network(), F.cross_entropy, x, y)
    before = torch.get_num_threads()
    evaluation = Evaluation({"training": objective}, torch.float32, 2)
    seconds = evaluation.seconds(objective.start, ["training"])
    assert 0 < seconds["training"] < 1
    assert torch.get_num_threads() == before
    counts: list[int] = []
    thread = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert counts == [before], "of threads that begin later"


class Sleeping(nn.Module):
    """Takes 10 ms, whatever else the machine does."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(0.01)
        return (x.flatten(1).mean(1) + self.w)[:, None].expand(-1, 5)


def test_the_time_of_all_is_known_beforehand() -> None:
    x, y = problem()
    objective = Objective(Sleeping(), F.cross_entropy, x[:8], y[:8])
    evaluations = Evaluations(*[Evaluation({"training": objective}, torch.float64, 2)] * 2)
    of = PointSet(objective.start, torch.ones(1, 1, dtype=torch.float64), torch.zeros(40, 1, dtype=torch.float64))
    work = [Work(of, ["training"], True)]
    seconds = evaluations.seconds(work)
    assert 40 * 0.01 / 2 < seconds < 4 * 40 * 0.01 / 2, "two threads sleep at the same time"
    before = time.monotonic()
    evaluations.of_all(work, silent)
    assert seconds / 2 < time.monotonic() - before < 4 * seconds


def test_progress_is_said_in_lines_where_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(points_done, "SILENCE", 0.0)
    said: list[str] = []
    with points_done.PointsDone(400, said.append) as done:
        for _ in range(400):
            done(1)
    assert len(said) == 19, "every twentieth, but for the last"
    assert re.fullmatch(r"20/400 points, \d+ s left", said[0])
    assert said[-1].startswith("380/400 points, ")


def test_what_fails_in_a_thread_is_raised() -> None:
    x, y = problem()
    broken = Objective(network(), F.cross_entropy, x, y + 3)  # there is no class 7
    with pytest.raises(IndexError, match="Target"):
        Evaluation({"training": broken}, torch.float32, 2).at(points(len(broken.start)), ["training"], silent)


@pytest.mark.parametrize("window", [2, 3, (2, 1), (1, 3), (3, 2)])
def test_pooling_by_maxima_has_the_bits_of_torch(window: int | tuple[int, int]) -> None:
    x = torch.randn(4, 3, 11, 10, generator=torch.Generator().manual_seed(3))
    x[0, 0, :3, :3] = torch.nan
    x[1, 1] = -torch.inf
    layer = nn.MaxPool2d(window)
    (found,) = pooling_by_maxima(nn.Sequential(layer)).children()
    assert isinstance(found, PoolingByMaxima)
    torch.testing.assert_close(found(x), layer(x), rtol=0, atol=0, equal_nan=True)


def test_pooling_that_maxima_do_not_compute_stays() -> None:
    class Own(nn.MaxPool2d):
        pass

    hooked = nn.MaxPool2d(2)
    hooked.register_forward_hook(lambda _layer, _inputs, output: 2 * output)
    others = (
        nn.MaxPool2d(3, stride=2),
        nn.MaxPool2d(2, padding=1),
        nn.MaxPool2d(2, dilation=2),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.MaxPool2d(2, return_indices=True),
        Own(2),
        hooked,
    )
    module = nn.ModuleList(others)
    found = pooling_by_maxima(module)
    kept = list(found.children())
    assert [type(layer) for layer in kept] == [type(layer) for layer in others]
    assert kept[0] is not others[0], "a copy"


@pytest.mark.parametrize("has_relu", [True, False])
@pytest.mark.parametrize("size", [(9, 12), (10, 11), (5, 4)])
@pytest.mark.parametrize("options", [{}, {"padding": 1}, {"padding": (2, 0), "bias": False}])
def test_a_convolution_that_pools_has_the_values_of_both(
    has_relu: bool, size: tuple[int, int], options: dict[str, Any]
) -> None:
    torch.manual_seed(4)
    layers = [nn.Conv2d(3, 5, (3, 2), **options), *([nn.ReLU()] if has_relu else []), nn.MaxPool2d(2)]
    module, x = nn.Sequential(*layers), torch.randn(6, 3, *size)
    found = quick(module, x)
    assert isinstance(next(found.children()), PooledConvolution)
    assert [name for name, _ in found.named_parameters()] == [name for name, _ in module.named_parameters()]
    with torch.no_grad():
        torch.testing.assert_close(found(x), module(x), rtol=1e-6, atol=1e-6)
    exact = quick(module.double(), x.double())
    assert not any(isinstance(layer, PooledConvolution) for layer in exact.modules())


def test_convolutions_whose_outputs_others_need_stay() -> None:
    for layer in (
        nn.Conv2d(1, 9, 3),
        nn.Conv2d(1, 4, 3, stride=2),
        nn.Conv2d(1, 4, 3, dilation=2),
        nn.Conv2d(2, 4, 3, groups=2),
        nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(1, 4, 3, padding="same"),
    ):
        assert not _pools(nn.Sequential(layer, nn.MaxPool2d(2)))
    conv, pooling = nn.Conv2d(1, 4, 3), nn.MaxPool2d(2)
    assert _pools(nn.Sequential(conv, pooling))
    assert not _pools(nn.Sequential(conv, nn.MaxPool2d(3)))
    assert not _pools(nn.Sequential(conv, nn.Tanh(), pooling))
    assert not _pools(nn.Sequential(conv, nn.ReLU()))
    assert not _pools(nn.Sequential(conv))
    assert not _pools(Watched(conv, pooling)), "it shows on the samples"
    conv.register_forward_hook(lambda _layer, _inputs, output: 2 * output)
    assert not _pools(nn.Sequential(conv, pooling))


def _pools(module: nn.Module) -> bool:
    (layer, *_) = (part for part in module.modules() if isinstance(part, nn.Conv2d))
    found = quick(module, torch.randn(2, layer.in_channels, 8, 8, generator=torch.Generator().manual_seed(5)))
    return any(isinstance(part, PooledConvolution) for part in found.modules())


class Watched(nn.Module):
    """Uses what the convolution puts out."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        (first, *others) = self.layers
        found = first(x)
        return torch.stack([found.mean(), *(layer(found).mean() for layer in others)])
