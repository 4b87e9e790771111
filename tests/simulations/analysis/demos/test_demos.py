"""The demonstrations show what the papers prove: expected values come from their theorems."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from simulations.analysis.demos import amsgrad, drift, generalization, lookahead, paths, rates, weight_decay
from simulations.analysis.demos.surfaces import SURFACES
from simulations.analysis.result import Result
from tests.commands import fedopt


def column(found: Result, curve: str, name: str) -> list[float]:
    place = list(found.columns).index(name)
    return [float(str(row[place])) for row in found.rows if row[0] == curve and row[place] is not None]


def test_adam_is_at_the_worst_point_after_every_three_steps_as_theorem_1_says() -> None:
    found = amsgrad.demonstrate(300, 4.0)
    adam, ams = (column(found, f"{name}, β₂ = {1 / 17:.3g}", "x") for name in ("adam", "amsgrad"))
    assert adam[2::3] == pytest.approx([1.0] * 100, abs=1e-12)
    assert ams[-1] < -0.9
    # Algorithm 2 of the paper, with beta_1 = 0
    x, v, largest, rate, losses = 1.0, 0.0, 0.0, 0.9 * math.sqrt(16 / 17), 0.0
    for t in range(1, 301):
        slope = 4.0 if t % 3 == 1 else -1.0
        losses += slope * (x + 1)
        v = v / 17 + 16 / 17 * slope**2
        largest = max(largest, v)
        x = min(1.0, max(-1.0, x - rate / math.sqrt(t) * slope / math.sqrt(largest)))
        assert ams[t - 1] == pytest.approx(x, abs=1e-9)
    regret = column(found, f"amsgrad, β₂ = {1 / 17:.3g}", "mean regret")
    assert regret[-1] == pytest.approx(losses / 300, abs=1e-9)


def test_lookahead_s_noise_is_that_of_proposition_2() -> None:
    rate, period, b, steps = 0.4, 5, 0.5, 3000
    a = 1 / np.arange(1, lookahead.ENTRIES + 1)
    decay = 1 - rate * a
    of_sgd = rate**2 * a / (1 - decay**2)
    shrunk = b**2 * (1 - decay ** (2 * period))
    of_lookahead = shrunk / (shrunk + 2 * b * (1 - b) * (1 - decay**period)) * of_sgd
    curvatures = torch.from_numpy(a)
    assert lookahead.of_sgd(curvatures, rate, steps)[-1].item() == pytest.approx(0.5 * a @ of_sgd, rel=1e-9)
    slow = lookahead.of_lookahead(curvatures, rate, period, b, steps)
    assert slow[-1].item() == pytest.approx(0.5 * a @ of_lookahead, rel=1e-9)


def test_the_noisy_quadratic_s_runs_have_the_loss_that_the_theory_gives() -> None:
    found = lookahead.demonstrate(60, 0.5, 5, 0.5, 1500, seed=1)
    for name in ("sgd, lr 0.5", "sgd, lr 0.25", "lookahead, lr 0.5"):
        measured, exact = column(found, name, "excess loss"), column(found, name, "in theory")
        places = range(0, 61, 5) if name.startswith("lookahead") else range(61)
        # the loss of a run has a standard deviation below its mean: 1500 runs, 5 standard errors
        assert [measured[place] for place in places] == pytest.approx(exact, rel=5 / math.sqrt(1500))


@pytest.mark.parametrize("decay", [0.05, 0.5])
def test_adamw_rests_at_the_root_of_its_equation(decay: float) -> None:
    noises = torch.tensor(weight_decay.NOISES, dtype=torch.float64)
    for s, w in zip(weight_decay.NOISES, weight_decay.rest_of_adamw(noises, decay).tolist(), strict=True):
        # (1 - w)^2 = decay^2 w^2 ((w - 1)^2 + s^2), a polynomial in w
        square = np.polymul([1, -1], [1, -1])
        roots = np.roots(np.polysub(np.polymul(decay**2 * np.array([1, 0, 0]), np.polyadd(square, [s**2])), square))
        between = [root.real for root in roots if abs(root.imag) < 1e-9 and 0 <= root.real <= 1]
        assert min(abs(root - w) for root in between) < 1e-9


def test_weights_rest_where_the_theory_says() -> None:
    found = weight_decay.demonstrate(1500, 0.01, 0.1, 100, seed=0)
    for name in ("adam with L2", "adamw", "sgd with L2"):
        measured, exact = column(found, name, "mean weight"), column(found, name, "in theory")
        assert measured[:6] == pytest.approx(exact[:6], abs=0.02), "where the noise is at most 2"
    assert column(found, "adamw", "mean weight")[-1] < 0.6 < column(found, "adam with L2", "mean weight")[-1]


@pytest.mark.parametrize("name", SURFACES)
def test_the_stars_of_a_surface_are_minima(name: str) -> None:
    surface = SURFACES[name]
    for minimum in surface.minima:
        point = torch.tensor([minimum], dtype=torch.float64)
        assert torch.linalg.vector_norm(surface.gradient(point)).item() < 0.1, "to the digits of a picture"
        hessian = surface.hessian(point[0])
        torch.testing.assert_close(hessian, torch.func.hessian(surface.at)(point[0]))
        assert torch.linalg.eigvalsh(hessian)[0].item() > -1e-9


def test_the_help_of_paths_names_all_surfaces_and_counts_the_paths() -> None:
    text = " ".join(fedopt("demo", "paths", "--help").stdout.split())
    assert all(name in text for name in SURFACES)
    assert f"Draw {len(list(paths.arms(SURFACES['quadratic'])))} paths" in text


def test_paths_over_a_quadratic_are_those_of_the_closed_form() -> None:
    found = paths.demonstrate("quadratic", 40, 0)
    start, curvatures = np.array([-4.0, 1.0]), np.array([1.0, 25.0])
    for label, rate in {"too small, 0.004": 0.004, "right, 0.04": 0.04, "much too large, 0.1": 0.1}.items():
        rows = [row for row in found.rows if row[:2] == ("step size", label)]
        expected = [start * (1 - rate * curvatures) ** step for step in range(41)]
        assert np.array([row[3:5] for row in rows], dtype=float) == pytest.approx(np.array(expected), rel=1e-9)
        assert [row[5] for row in rows] == pytest.approx([0.5 * (curvatures * w**2).sum() for w in expected], rel=1e-9)
    ends = {row[1]: row for row in found.rows if row[2] == 40}
    assert ends["newton"][3:] == pytest.approx((0, 0, 0), abs=1e-9)
    assert ends["lbfgs"][5] == pytest.approx(0, abs=1e-12)


def test_sam_prefers_flat_minima() -> None:
    product, two = (paths.demonstrate(name, None, 0) for name in ("product", "two-minima"))
    ends = {row[1]: row for row in product.rows if row[2] == SURFACES["product"].steps}
    w1, w2 = ends["sam"][3:5]
    assert (float(w1 or 0), float(w2 or 0)) == pytest.approx((1, 1), abs=0.1), "the flattest of the minima"
    assert float(ends["gradient descent"][4] or 0) > 3, "it stays beside its start"
    ends = {row[1]: row for row in two.rows if row[2] == SURFACES["two-minima"].steps}
    assert ends["gradient descent"][3] == pytest.approx(-0.96, abs=0.05)
    assert ends["sam"][3] == pytest.approx(0.95, abs=0.05)


@pytest.mark.parametrize(("steps", "mu"), [(1, 0.0), (7, 0.0), (7, 2.0)])
def test_fedavg_and_fedprox_rest_where_the_closed_form_says(steps: int, mu: float) -> None:
    clients, lr = drift.CLIENTS, 0.1
    x = np.array([2.5, 2.0])
    for _ in range(400):  # the plain loop of FedProx, whose mu = 0 is FedAvg
        ends = []
        for a, t in zip(clients.matrices.numpy(), clients.targets.numpy(), strict=True):
            y = x.copy()
            for _ in range(steps):
                y -= lr * (a @ (y - t) + mu * (y - x))
            ends.append(y)
        x = np.mean(ends, axis=0)
    assert clients.fixed_point(lr, steps, mu).numpy() == pytest.approx(x, abs=1e-10)


def test_scaffold_and_feddyn_reach_the_optimum_and_fedavg_does_not() -> None:
    found = drift.demonstrate(7, 0.1, 80)
    last = {row[0]: row for row in found.rows if row[2] == 80}
    a, t = drift.CLIENTS.matrices.numpy(), drift.CLIENTS.targets.numpy()
    optimum = np.linalg.solve(a.sum(0), np.einsum("nij,nj->i", a, t))
    for name in ("scaffold", "feddyn, alpha 1"):
        assert [float(str(value)) for value in last[name][3:5]] == pytest.approx(optimum, abs=1e-10)
    assert float(str(last["fedavg"][5])) > float(str(last["fedprox, mu 1"][5])) > 0.1
    resting = {row[1]: float(str(row[5])) for row in found.rows if row[2] is None}
    assert resting[1] < 1e-12 < resting[2] < resting[5] < resting[50]
    local = drift.CLIENTS.local_path(0, drift.START, 0.1, 3)
    assert local[3].numpy() == pytest.approx(t[0] + (1 - 0.1 * np.diag(a[0])) ** 3 * (drift.START.numpy() - t[0]))


@pytest.fixture(scope="module")
def measured() -> dict[tuple[str, str], tuple[list[float], list[float]]]:
    """x and y of every curve by its panel, up to a colon, and its label."""
    found: dict[tuple[str, str], tuple[list[float], list[float]]] = {}
    for panel, label, _, x, y in rates.demonstrate(40, 300, 0).rows:
        xs, ys = found.setdefault((str(panel).partition(":")[0], str(label)), ([], []))
        xs.append(float(str(x)))
        ys.append(float(str(y)))
    return found


Curves = dict[tuple[str, str], tuple[list[float], list[float]]]


def test_gradient_descent_and_heavy_ball_are_those_of_the_recurrences(measured: Curves) -> None:
    a = np.logspace(math.log10(rates.MU), math.log10(rates.LARGEST), rates.ENTRIES)
    steps, descent = measured["smooth", "gradient descent, lr = 1/L"]
    assert descent == pytest.approx([0.5 * (a * (1 - a) ** (2 * k)).sum() for k in steps], rel=1e-9)
    assert all(found <= bound for found, bound in zip(descent, measured["smooth", "|w0|²/(2 lr k)"][1], strict=True))
    # heavy ball as w+ = w - lr g + b (w - w before)
    root_l, root_mu = math.sqrt(rates.LARGEST), math.sqrt(rates.MU)
    lr, b = (2 / (root_l + root_mu)) ** 2, ((root_l - root_mu) / (root_l + root_mu)) ** 2
    before = w = np.ones(rates.ENTRIES)
    for norm in measured["strongly convex", "heavy ball"][1]:
        assert norm == pytest.approx(np.linalg.norm(w), rel=1e-8)
        before, w = w, w - lr * a * w + b * (w - before)


def test_noise_ends_where_its_closed_form_says(measured: Curves) -> None:
    a = np.logspace(math.log10(rates.MU), math.log10(rates.LARGEST), rates.ENTRIES)
    for name, rate in {"lr 0.5": 0.5, "lr 0.05": 0.05}.items():
        xs, ys = measured["noise", name]
        kept = (1 - rate * a) ** (2 * xs[-1])
        exact = 0.5 * (a * (kept + rate**2 * rates.NOISE**2 * (1 - kept) / (1 - (1 - rate * a) ** 2))).sum()
        assert measured["noise", f"{name}, expected"][1][-1] == pytest.approx(exact, rel=1e-9)
        # f has a standard deviation below its mean: 300 runs, 5 standard errors
        assert ys[-1] == pytest.approx(exact, rel=5 / math.sqrt(300))


def _steps_to_target(a: np.ndarray[Any, np.dtype[np.float64]], rate: float, batch: float, most: int) -> float:
    """The steps until the expected loss is at the target, by the recurrence; infinity where `most` do not suffice."""
    e, v = np.ones(len(a)), np.zeros(len(a))
    for step in range(most + 1):
        if 0.5 * (a * (e**2 + v)).sum() <= rates.TARGET:
            return step
        e, v = (1 - rate * a) * e, (1 - rate * a) ** 2 * v + rate**2 * rates.NOISE**2 / batch
    return math.inf


def test_batches_keep_their_bound_and_steps_to_a_target_are_the_fewest(measured: Curves) -> None:
    mean, exact, bound = (measured["batch", name][1] for name in ("measured", "expected", "bound"))
    assert mean == pytest.approx(exact, rel=0.05)
    assert all(found < most for found, most in zip(mean, bound, strict=True))
    panel = next(panel for panel, _ in measured if panel.startswith("steps to"))
    batches, fewest = measured[panel, "best constant rate"]
    a = np.logspace(math.log10(rates.MU), math.log10(rates.LARGEST), rates.ENTRIES)
    for batch, steps in list(zip(batches, fewest, strict=True))[2:]:
        rate, _ = rates.best_rate(int(batch))
        assert _steps_to_target(a, rate, batch, 10_000) == steps
        if batch >= 1000:  # with few steps, so that many rates can be tried: none is faster by more than a step
            others = [1.95 * place / 200 for place in range(20, 201)]
            assert math.isinf(min(_steps_to_target(a, other, batch, int(steps) - 2) for other in others))
    assert measured[panel, "measured"][1] == pytest.approx(fewest, rel=0.15, abs=1)


def test_the_gap_on_a_line_is_that_of_the_closed_form() -> None:
    for n, gap in generalization.line_gaps(0).items():
        # the training loss of a fit has a deviation of about 0.3 / sqrt(n), and the means are of many fits
        assert gap == pytest.approx(2 / 3 / n, abs=5 * 0.35 / math.sqrt(n * generalization.REPEATS))


def test_random_labels_say_nothing_about_the_test_set() -> None:
    true, random = (generalization.trained(12, 32, 0.05, 0, momentum=0.9, random_labels=flag) for flag in (False, True))
    assert len(true.train) == len(true.test) == len(true.loss) == 12
    assert true.train[-1] > 0.98 < true.test[-1] + 0.04
    assert random.train[-1] > 0.2, "it fits some of them by heart"
    assert random.test[-1] < 0.2, "chance is 0.1"


def test_the_command_writes_numbers_and_figures(tmp_path: Path) -> None:
    done = fedopt("demo", "lookahead", "--steps", "7", "--runs", "3", "--json", "--out", tmp_path / "new" / "demo")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "new" / "demo"
    assert sorted(file.name for file in folder.iterdir()) == [f"lookahead.{e}" for e in ("csv", "json", "pdf", "svg")]
    assert json.loads(done.stdout) == json.loads((folder / "lookahead.json").read_text())
    rows = list(csv.DictReader(io.StringIO((folder / "lookahead.csv").read_text())))
    assert len(rows) == 3 * 8
    assert [row["step"] for row in rows if row["optimizer"].startswith("look") and row["in theory"]] == ["0", "5"]
    assert b"<svg" in (folder / "lookahead.svg").read_bytes()
