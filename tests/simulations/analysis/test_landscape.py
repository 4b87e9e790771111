"""Lines, barriers and planes of losses that are known everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fedopt.vectors.layout import Layout
from simulations.analysis.landscape import filter_normalized, on_line, on_plane
from simulations.analysis.objective import Objective
from tests.commands import fedopt


class TwoWells(nn.Module):
    """(w1^2 - 1)^2 + 3 w2^2 for every sample."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        return ((self.w[0] ** 2 - 1) ** 2 + 3 * self.w[1] ** 2).expand(len(x))


def own_output(outputs: Tensor, _targets: Tensor, /, *, reduction: str = "mean") -> Tensor:
    return outputs.mean() if reduction == "mean" else outputs


WELLS = Objective(TwoWells(), own_output, torch.zeros(3, 1), torch.zeros(3))


def point(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def test_the_barrier_between_two_wells_is_the_hill_between_them() -> None:
    line = on_line({"training": WELLS}, point(-1, 0), point(1, 0), 21, 0.25)
    assert line.places == pytest.approx([-0.25 + 0.05 * place for place in range(31)])
    expected = [((2 * place - 1) ** 2 - 1) ** 2 for place in line.places]
    assert line.losses["training"] == pytest.approx(expected, abs=1e-12)
    assert line.barrier("training") == pytest.approx(1), "at (0, 0)"
    straight = on_line({"training": WELLS}, point(1, -1), point(1, 1), 11, 0.0)
    assert straight.places == pytest.approx([0.1 * place for place in range(11)])
    assert straight.barrier("training") == 0, "a valley has none"
    raised = on_line({"training": WELLS}, point(-1, 2), point(1, 0), 5, 0.0)
    # at the middle (0, 1): 1 + 3, where the straight line is at 6
    assert raised.barrier("training") == 0


def test_a_plane_holds_the_loss_at_every_point() -> None:
    directions = point(0.5, 0.0), point(0.0, 2.0)
    plane = on_plane({"training": WELLS}, point(0.5, 0.5), directions, 5, 1.0)
    assert plane.places == [-1.0, -0.5, 0.0, 0.5, 1.0]
    for b, row in zip(plane.places, plane.losses["training"], strict=True):
        for a, loss in zip(plane.places, row, strict=True):
            w1, w2 = 0.5 + 0.5 * a, 0.5 + 2 * b
            assert loss == pytest.approx((w1**2 - 1) ** 2 + 3 * w2**2)
    assert plane.lowest("training") == (1.0, -0.5), "w1 = 1 and w2 = -0.5; of equal ones the first"


def test_filters_of_a_direction_have_the_lengths_of_the_model_s() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(4, 5)).double()
    layout = Layout.of(module)
    w = layout.flatten(module)
    direction = layout.split(filter_normalized(layout, w, torch.Generator().manual_seed(1)))
    for name, own in layout.split(w).items():
        if own.ndim == 1:
            assert not direction[name].any()
        else:
            torch.testing.assert_close(direction[name].flatten(1).norm(dim=1), own.flatten(1).norm(dim=1))
            assert abs(torch.cosine_similarity(direction[name].flatten(), own.flatten(), dim=0)) < 0.6


def test_the_command_draws_a_run(tmp_path: Path) -> None:
    runs = [tmp_path / "a", tmp_path / "b"]
    for seed, run in enumerate(runs):
        done = fedopt("run", "--set", "run.rounds=2", "--set", f"run.seed={seed}", "-q", "--out", run)
        assert done.returncode == 0, done.stderr
    small = ["--points", "5", "--samples", "40"]
    done = fedopt("analyze", "landscape", runs[0], "--other", runs[1], "--clients", "2", *small, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found["numbers"]["barriers"]) == {"initial to final", "final to other"}
    assert sum(finding.startswith("plane: the client") for finding in found["findings"]) == 2
    rows = (runs[0] / "analysis" / "landscape.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * 2 * 7 + 4 * 25
    done = fedopt("run", "--set", "model.hidden=[3]", "--set", "run.rounds=1", "-q", "--out", tmp_path / "c")
    assert done.returncode == 0, done.stderr
    done = fedopt("analyze", "landscape", runs[0], "--other", tmp_path / "c")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "its model has other parameters" in done.stderr
    assert "the run has 20" in fedopt("analyze", "landscape", runs[0], "--clients", "99").stderr
