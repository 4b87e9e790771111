"""Sharpness against quadratics with known spectra, and against the dense Hessian of logistic regression."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from simulations.analysis.runs.objective import Objective
from simulations.analysis.sharpness.flatness import Norm, average_rise, furthest, worst_rise
from simulations.analysis.sharpness.hessian import density, largest, smallest, trace
from simulations.analysis.sharpness.measures import Settings, measure, noise
from tests.commands import fedopt

SPECTRUM = torch.tensor([9.0, 4.0, 1.0, 0.5, -0.25, *[0.01 * place for place in range(45)]], dtype=torch.float64)
SIZE = len(SPECTRUM)


class Bowl(nn.Module):
    """1/2 w' H w for each sample, plus <w, x> with samples x."""

    def __init__(self, hessian: Tensor, w: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(w.clone())
        self.register_buffer("hessian", hessian)

    def forward(self, x: Tensor) -> Tensor:
        risen: Tensor = 0.5 * (self.w @ self.get_buffer("hessian") @ self.w) + torch.mv(x, self.w)
        return risen


def own_output(outputs: Tensor, _targets: Tensor, /, *, reduction: str = "mean") -> Tensor:
    return outputs.mean() if reduction == "mean" else outputs


def rotation() -> Tensor:
    drawn = torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    basis: Tensor = torch.linalg.qr(drawn)[0]
    return basis


def bowl(hessian: Tensor, x: Tensor, w: Tensor | None = None) -> Objective:
    start = torch.zeros(len(hessian), dtype=torch.float64) if w is None else w
    return Objective(Bowl(hessian, start), own_output, x, torch.zeros(len(x)))


def test_the_spectrum_of_a_quadratic_is_the_known_one() -> None:
    basis = rotation()
    objective = bowl(basis @ torch.diag(SPECTRUM) @ basis.T, torch.zeros(3, SIZE, dtype=torch.float64))

    def product(v: Tensor) -> Tensor:
        return objective.product(objective.start, v)

    values, vector = largest(product, SIZE, 3, 0)
    assert values == pytest.approx([9, 4, 1], rel=1e-8)
    assert abs(float(vector @ basis[:, 0])) == pytest.approx(1, abs=1e-8)
    assert smallest(product, SIZE, 0) == pytest.approx(-0.25, rel=1e-8)
    source = torch.Generator().manual_seed(1)
    found = trace(product, SIZE, 200, source)
    assert found.mean == pytest.approx(SPECTRUM.sum().item(), abs=5 * found.error)
    assert 0 < found.error < 2
    spectrum = density(product, SIZE, 8, SIZE, source)
    assert sum(spectrum.weights) == pytest.approx(1)
    moments = [sum(w * a**k for a, w in zip(spectrum.places, spectrum.weights, strict=True)) for k in (1, 2)]
    # each probe's moment has a relative deviation of about sqrt(2 / SIZE) times the spread of the spectrum
    assert moments[0] == pytest.approx(SPECTRUM.mean().item(), rel=0.6)
    assert max(spectrum.places) == pytest.approx(9, rel=1e-6)
    assert min(spectrum.places) == pytest.approx(-0.25, rel=1e-4)


def test_the_smallest_eigenvalue_of_a_large_singular_matrix_is_found_in_few_products() -> None:
    """A loss that no step along most directions changes, as that of logistic regression."""
    for least in (0.0, -0.25):
        values = torch.zeros(1500, dtype=torch.float64)
        values[:40] = torch.linspace(0.01, 9, 40)
        values[40] = least
        calls = 0

        def product(v: Tensor, values: Tensor = values) -> Tensor:
            nonlocal calls
            calls += 1
            return values * v

        assert smallest(product, 1500, 0, 9.0) == pytest.approx(least, abs=9e-4)
        assert calls < 400


def test_hutchinson_is_exact_for_a_diagonal() -> None:
    found = trace(lambda v: SPECTRUM * v, SIZE, 3, torch.Generator().manual_seed(0))
    assert found.mean == pytest.approx(SPECTRUM.sum().item(), rel=1e-12)
    assert found.error == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("norm", "expected"), [("2", 0.5 * 9), ("1", 0.5 * 9), ("inf", 0.5 * SPECTRUM.sum().item())])
def test_the_worst_rise_around_the_minimum_of_a_quadratic(norm: Norm, expected: float) -> None:
    """1/2 rho^2 times the largest curvature within the balls of |.|_2 and |.|_1, times the trace in a corner."""
    rho, positive = 0.3, SPECTRUM.abs()
    objective = bowl(torch.diag(positive), torch.zeros(2, SIZE, dtype=torch.float64))
    start = positive + 0.1 * torch.rand(SIZE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = worst_rise(objective, objective.start, rho, norm, [start], 200)
    expected += 0.25 if norm == "inf" else 0.0  # of the curvature that is negative in SPECTRUM
    assert found == pytest.approx(expected * rho**2, rel=1e-8)


def test_the_worst_rise_on_a_slope_is_that_of_the_dual_norm() -> None:
    slope = torch.randn(SIZE, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    objective = bowl(torch.zeros(SIZE, SIZE, dtype=torch.float64), slope[None])
    duals = {"2": torch.linalg.vector_norm(slope), "inf": slope.abs().sum(), "1": slope.abs().max()}
    for norm, dual in duals.items():
        found = worst_rise(objective, objective.start, 0.2, norm, [slope], 3)  # type: ignore[arg-type]
        assert found == pytest.approx(0.2 * dual.item(), rel=1e-12)
        step = furthest(slope, 0.2, norm)  # type: ignore[arg-type]
        assert torch.linalg.vector_norm(step, ord=float(norm)).item() == pytest.approx(0.2)


def test_the_average_rise_of_a_quadratic_is_its_mean_curvature() -> None:
    objective = bowl(torch.diag(SPECTRUM), torch.zeros(2, SIZE, dtype=torch.float64))
    mean, error = average_rise(objective, objective.start, 0.5, 2000, torch.Generator().manual_seed(5))
    assert mean == pytest.approx(0.5 * 0.25 * SPECTRUM.mean().item(), abs=5 * error)
    assert error < 0.05 * mean


def test_the_noise_of_the_gradient_is_the_trace_of_the_samples_covariance() -> None:
    x = torch.randn(16 * 400, SIZE, generator=torch.Generator().manual_seed(6), dtype=torch.float64) * SPECTRUM.abs()
    objective = bowl(torch.diag(SPECTRUM), x)
    found = noise(objective, objective.start)
    assert found == pytest.approx(x.var(0).sum().item(), rel=0.1), "from 400 batches"
    batches = torch.stack(list(objective.of_batches(objective.start, 16)))
    torch.testing.assert_close(batches, x.reshape(400, 16, SIZE).mean(1))
    assert noise(bowl(torch.diag(SPECTRUM), x[:20]), objective.start) is None, "one batch has no spread"


def test_logistic_regression_has_the_spectrum_of_its_dense_hessian() -> None:
    source = torch.Generator().manual_seed(7)
    x, y = torch.randn(300, 12, generator=source), torch.randint(0, 4, (300,), generator=source)
    module = nn.Linear(12, 4)
    objective = Objective(module, F.cross_entropy, x, y)

    def loss(w: Tensor) -> Tensor:
        return F.cross_entropy(x.double() @ w[:48].view(4, 12).T + w[48:], y)

    w = objective.start
    dense = torch.func.hessian(loss)(w)
    expected = torch.linalg.eigvalsh(dense).flip(0)
    found = measure(objective, w, Settings(eigenvalues=4), lambda line: None)
    assert found.largest == pytest.approx(expected[:4].tolist(), rel=1e-8)
    assert found.smallest == pytest.approx(expected[-1].item(), abs=1e-9)
    assert found.loss == pytest.approx(loss(w).item(), rel=1e-12)
    assert found.gradient == pytest.approx(torch.linalg.vector_norm(torch.func.grad(loss)(w)).item(), rel=1e-10)
    assert found.trace == pytest.approx(expected.sum().item(), abs=6 * found.trace_error)
    bound = 0.05 * found.gradient + 0.5 * 0.05**2 * expected[0].item()
    assert 0.05 * found.gradient <= found.worst["2"] <= bound * 1.05


def test_the_command_analyzes_a_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = fedopt("run", "--set", "run.rounds=1", "--set", "algorithm.name=ditto", "-q", "--out", run)
    assert done.returncode == 0, done.stderr
    done = fedopt("analyze", "sharpness", run, "--samples", "40", "--eigenvalues", "2", "--client", "1", "--json")
    assert done.returncode == 0, done.stderr
    files = sorted(file.name for file in (run / "analysis").iterdir())
    assert files == ["cache", *(f"sharpness-client-1.{ending}" for ending in ("csv", "json", "pdf", "svg"))]
    found = json.loads(done.stdout)
    assert found == json.loads((run / "analysis" / "sharpness-client-1.json").read_text())
    assert found["numbers"]["largest"][0] > found["numbers"]["largest"][1] > found["numbers"]["smallest"]
    assert math.isfinite(found["numbers"]["worst"]["2"])
    assert found["compared"]["largest eigenvalue"] == found["numbers"]["largest"][0]
    done = fedopt("analyze", "sharpness", run, "--client", "99")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "the run has clients 0 to" in done.stderr
    assert "holds no run" in fedopt("analyze", "sharpness", tmp_path / "gone").stderr
    assert np.loadtxt(run / "analysis" / "sharpness-client-1.csv", delimiter=",", skiprows=1).shape[1] == 2
