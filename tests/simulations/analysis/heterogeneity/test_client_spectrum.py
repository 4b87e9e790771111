"""The spectrum of clients' gradients against numpy's dense covariance, closed forms, and a run's own records."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor

import fedopt
from fedopt.data.loading import load_dataset
from fedopt.data.partition import partition
from fedopt.errors import InvalidExperiment
from fedopt.vectors.layout import Layout
from simulations.analysis.heterogeneity import spectrum as spectrum_of_run
from simulations.analysis.heterogeneity.client_gradients import angles_between, client_spectrum, heterogeneity
from simulations.analysis.heterogeneity.spectrum import spectrum_at
from simulations.analysis.runs.cache import Cache
from simulations.analysis.runs.of_run import AnalyzedRun
from simulations.analysis.runs.points import Points
from simulations.commands.analyze_spectrum import spectrum
from tests.commands import fedopt as command

SHARES = [0.1, 0.4, 0.3, 0.2]
LAYOUT = Layout(("a.weight", "a.bias", "b.weight"), (torch.Size([4, 3]), torch.Size([4]), torch.Size([2, 4])))


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense(gradients: Tensor, shares: list[float]) -> np.ndarray:
    """The eigenvalues of numpy's covariance [P, P], falling."""
    covariance = np.cov(gradients.numpy().T, aweights=shares, ddof=0)
    return np.linalg.eigvalsh(covariance)[::-1]


@pytest.mark.parametrize("near", [1.0, 1e-4])
def test_the_eigenvalues_are_those_of_the_dense_covariance(near: float) -> None:
    gradients = random(0, LAYOUT.size) + near * random(1, 4, LAYOUT.size)
    expected = dense(gradients, SHARES)
    found = heterogeneity(gradients, SHARES)
    np.testing.assert_allclose(found.eigenvalues[:3], expected[:3], rtol=1e-10 / near)
    assert found.eigenvalues[3] == pytest.approx(0, abs=1e-12 * expected[0]), "of rank N - 1"
    assert found.variance == pytest.approx(expected.sum(), rel=1e-10)
    assert found.largest == pytest.approx(expected[0] / expected.sum(), rel=1e-10)
    assert found.dimension == pytest.approx(expected.sum() ** 2 / (expected**2).sum(), rel=1e-10)
    rows, mean = gradients.numpy(), np.average(gradients.numpy(), axis=0, weights=SHARES)
    square = sum(entry**2 for entry in mean)
    away = [p * sum((row - mean) ** 2) for p, row in zip(SHARES, rows, strict=True)]
    assert found.dissimilarity == pytest.approx(sum(away) / square, rel=1e-10)
    whole = [p * sum(row**2) for p, row in zip(SHARES, rows, strict=True)]
    assert found.b2 == pytest.approx(sum(whole) / square, rel=1e-10)
    assert found.gradient == pytest.approx(square**0.5, rel=1e-12)


def test_a_layer_is_its_module_with_weight_and_bias() -> None:
    gradients = random(2, 4, LAYOUT.size)
    found = client_spectrum(gradients, SHARES, LAYOUT)
    assert list(found.layers) == ["a", "b"]
    for name, part in (("a", gradients[:, :16]), ("b", gradients[:, 16:])):
        layer = found.layers[name]
        assert layer.entries == part.shape[1]
        np.testing.assert_allclose(layer.eigenvalues[:3], dense(part, SHARES)[:3], rtol=1e-10)
    assert found.whole.variance == pytest.approx(sum(one.variance for one in found.layers.values()), rel=1e-12)
    assert found.whole.entries == 24


def test_quadratic_clients_have_the_spectrum_of_their_targets() -> None:
    """Gradients A (w - t_i) with targets at the corners of a square: variance (a1^2 + a2^2), both directions."""
    targets = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    matrix, w = torch.diag(torch.tensor([3.0, 1.0], dtype=torch.float64)), torch.tensor([2.0, 0.0]).double()
    found = heterogeneity((w - targets) @ matrix, [0.25] * 4)
    assert found.eigenvalues == pytest.approx([9, 1, 0, 0], abs=1e-12)
    assert found.largest == pytest.approx(0.9)
    assert found.dimension == pytest.approx(100 / 82)
    assert found.gradient == pytest.approx(6)
    assert found.dissimilarity == pytest.approx(10 / 36)
    at_the_optimum = heterogeneity(-targets @ matrix, [0.25] * 4)
    assert at_the_optimum.dissimilarity is at_the_optimum.b2 is None
    assert at_the_optimum.variance == pytest.approx(10)


def test_angles_are_those_of_the_plane() -> None:
    degrees = torch.tensor([0.0, 61.0, 120.5, 271.0], dtype=torch.float64)
    rows = torch.stack([torch.cos(torch.deg2rad(degrees)), torch.sin(torch.deg2rad(degrees))], 1)
    lengths = torch.tensor([[1e-8], [2.0], [1.0], [1e6]], dtype=torch.float64)
    found = angles_between(torch.cat([lengths * rows, torch.zeros(1, 2, dtype=torch.float64)]))
    expected = [61, 120.5, 89, 59.5, 150, 150.5]
    assert found.pairs == 6, "the gradient of zeros has no angle"
    assert found.median == pytest.approx(np.median(expected), rel=1e-9)
    assert found.quantiles == pytest.approx(np.quantile(expected, [0.05, 0.25, 0.75, 0.95]), rel=1e-9)
    assert found.above_90 == pytest.approx(3 / 6)
    assert [(5 * place, count) for place, count in enumerate(found.histogram) if count] == [
        *((55, 1), (60, 1), (85, 1), (120, 1), (150, 2))
    ]
    alike = angles_between(torch.ones(3, 5, dtype=torch.float64))
    assert alike.median == pytest.approx(0, abs=1e-5)
    none = angles_between(torch.zeros(3, 5, dtype=torch.float64))
    assert (none.pairs, none.median, none.above_90, none.quantiles) == (0, None, None, [])


def test_equal_gradients_have_no_spectrum() -> None:
    found = heterogeneity(torch.ones(3, 4, dtype=torch.float64), [0.5, 0.25, 0.25])
    assert found.variance == 0
    assert found.largest is found.dimension is None
    assert found.dissimilarity == 0
    assert found.b2 == 1


def quiet(directory: Path) -> Cache:
    return Cache(directory, False, lambda line: None)


@pytest.mark.parametrize("weighting", ["samples", "uniform"])
def test_clients_of_a_linear_regression_have_the_covariance_that_numpy_finds(weighting: str, tmp_path: Path) -> None:
    """Their gradients are 2 X'(X W - Y) / n, over the entries of Y too, from the files of the run and of the data."""
    generator = np.random.default_rng(0)
    x = generator.standard_normal((90, 4))
    y = x @ generator.standard_normal((4, 2)) + generator.standard_normal((90, 2))
    np.savez(tmp_path / "own.npz", x_train=x[:70], y_train=y[:70], x_test=x[70:], y_test=y[70:])
    experiment = fedopt.Experiment(
        data={"name": "npz", "path": str(tmp_path / "own.npz"), "partition": "quantity", "clients": 5},
        model={"name": "logistic"},
        algorithm={"weighting": weighting},
        run={"rounds": 2, "dtype": "float64", "keep_models": 1},
    )
    fedopt.run(experiment, tmp_path / "run")
    run = AnalyzedRun.read(tmp_path / "run")
    found = spectrum_at(run, Points(run).at("round:1"), 5, quiet(tmp_path / "run"), lambda line: None)

    dataset = load_dataset(experiment.data, 0)
    parts = partition(dataset, experiment.data, 0)
    weights = load_file(tmp_path / "run" / "models" / "round-000001.safetensors")
    (bias_name,) = [name for name in weights if name.endswith("bias")]
    bias, matrix = weights[bias_name], weights[bias_name.replace("bias", "weight")]
    rows = []
    for part in parts:
        inputs, targets = dataset.x_train[part].double().numpy(), dataset.y_train[part].double().numpy()
        away = inputs @ matrix.T + bias - targets
        slopes = {"weight": 2 * away.T @ inputs / away.size, "bias": 2 * away.sum(0) / away.size}
        rows.append(np.concatenate([slopes[name.rpartition(".")[2]].ravel() for name in weights_in_order(run)]))
    gradients = torch.from_numpy(np.stack(rows))
    sizes = [len(part) for part in parts]
    shares = [size / 70 for size in sizes] if weighting == "samples" else [0.2] * 5
    assert len(set(sizes)) > 1
    np.testing.assert_allclose(found.whole.eigenvalues[:4], dense(gradients, shares)[:4], rtol=1e-10)
    mean = np.average(gradients.numpy(), axis=0, weights=shares)
    assert found.whole.gradient == pytest.approx(np.linalg.norm(mean), rel=1e-10)


def weights_in_order(run: AnalyzedRun) -> list[str]:
    return [name for name, _ in run.history.model().named_parameters()]


def test_the_measures_are_those_of_the_records_of_the_run(tmp_path: Path) -> None:
    experiment = fedopt.Experiment(
        data={"clients": 6, "alpha": 0.3},
        model={"name": "mlp", "hidden": [8]},
        local={"steps": 3},
        run={"rounds": 3, "participation": 1.0, "dtype": "float64", "keep_models": 1},
        metrics={"drift_every": 1},
    )
    history = fedopt.run(experiment, tmp_path / "run")
    run = AnalyzedRun.read(tmp_path / "run")
    points = Points(run)
    for record in history.records:
        assert record.gradients is not None
        point = points.at(f"round:{record.round - 1}")
        found = spectrum_at(run, point, 6, quiet(tmp_path / "run"), lambda line: None).whole
        assert found.gradient == pytest.approx(record.gradients.norm, rel=1e-9)
        assert found.variance == pytest.approx(record.gradients.zeta2, rel=1e-8)
        assert found.b2 == pytest.approx(record.gradients.b2, rel=1e-8)


def test_gradients_that_fill_the_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fedopt.run(fedopt.Experiment(model={"name": "logistic"}, run={"rounds": 1, "workers": 1}), tmp_path / "run")
    run = AnalyzedRun.read(tmp_path / "run")
    point = Points(run).at("final")
    monkeypatch.setattr(spectrum_of_run, "memory", lambda device: 80_000)
    with pytest.raises(InvalidExperiment, match=r"20 gradients of 650 parameters take .* GB; --clients 4 analyzes the"):
        spectrum_at(run, point, 20, quiet(tmp_path / "run"), lambda line: None)


def test_the_command_shows_clients_of_a_run_and_says_what_it_cannot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    fedopt.run(fedopt.Experiment(data={"clients": 5}, model={"name": "logistic"}, run={"rounds": 1, "workers": 1}), run)
    done = command("analyze", "spectrum", run, "--json")
    assert done.returncode == 0, done.stderr
    assert "gradients of 5 clients, 1437 samples" in done.stderr
    files = sorted(file.name for file in (run / "analysis").iterdir())
    assert files == ["cache", *(f"spectrum.{ending}" for ending in ("csv", "json", "pdf", "svg"))]
    found = json.loads(done.stdout)
    assert found == json.loads((run / "analysis" / "spectrum.json").read_text())
    assert "clients weighted by their samples, p_i = n_i / n, as the run does" in found["findings"][0]
    assert sum(found["numbers"]["all"]["angles"]["histogram"]) == 10
    assert found["compared"]["dissimilarity"] == found["numbers"]["all"]["dissimilarity"]
    spectrum(run, as_json=True)
    printed = capsys.readouterr()
    assert printed.out == done.stdout
    assert printed.err.count("; --again computes anew") == 1
    with pytest.raises(InvalidExperiment, match=r"^--clients 6: the run has 5$"):
        spectrum(run, clients=6)
    with pytest.raises(InvalidExperiment, match=r"^one client has no other to differ from; give --clients 2 or more$"):
        spectrum(run, clients=1)
