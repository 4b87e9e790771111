"""Losses at many points: those of one call after the other of a plain loop, whatever the threads and the chunks."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simulations.analysis.evaluation import Evaluation, PointSet
from simulations.analysis.objective import Objective
from simulations.analysis.pooling import PoolingByMaxima, pooling_by_maxima
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
    (quick,) = pooling_by_maxima(nn.Sequential(layer)).children()
    assert isinstance(quick, PoolingByMaxima)
    torch.testing.assert_close(quick(x), layer(x), rtol=0, atol=0, equal_nan=True)


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
