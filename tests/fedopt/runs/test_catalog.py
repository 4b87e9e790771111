"""Every measure has a name and a meaning that the user can read."""

from __future__ import annotations

from fedopt.runs.catalog import meaning, metrics, scalars
from tests.commands import fedopt


def test_every_field_that_a_run_writes_is_explained() -> None:
    assert all(text.endswith((".", ";")) or ":" in text for group in metrics().values() for text in group.values())
    assert all(len(text) > 10 for group in metrics().values() for text in group.values())


def test_the_scalars_are_those_of_the_issue() -> None:
    names = scalars()
    expected = {
        *("drift.norm", "drift.mean_norm", "drift.dispersion", "drift.ratio", "drift.cosine", "drift.longest"),
        "gradients.norm",
        *(
            "gradients.zeta2",
            "gradients.b2",
            "gradients.alignment",
            "algorithm.error",
            "algorithm.distance",
            "algorithm.gap",
        ),
        *("clients.mean", "clients.worst", "clients.deviation", "clients.mean_loss", "classes.worst"),
        *("regression.mse", "regression.mae", "regression.r2"),
        *("classes.mean_forgetting", "divergence", "moments.ratio", "moments.cosine"),
    }
    assert expected <= set(names)
    assert all(name.startswith("algorithm.") for name in set(names) - expected), "of other algorithms"
    assert all(meaning(name) for name in names)


def test_list_metrics_tells_them() -> None:
    done = fedopt("list", "metrics")
    assert done.returncode == 0
    output = " ".join(done.stdout.split())
    for name in scalars():
        assert name in output
    assert "sum w_i |d_i|^2 / |d|^2" in output
    assert "jensen_shannon" in output
    assert "did you mean metrics?" in fedopt("list", "metric").stderr
