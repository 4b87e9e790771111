"""How good a model is, in words: its accuracy, or its errors where targets are numbers."""

from __future__ import annotations

from fedopt.runs.history import Best, Final, RoundRecord


def quality(of: RoundRecord | Final) -> str:
    """Such as "test accuracy 93.10%" or "test R² 0.8123"; "" in a round without evaluation."""
    if of.regression is not None:
        return f"test R² {of.regression.r2:.4f}, MSE {of.regression.mse:.4g}, MAE {of.regression.mae:.4g}"
    return "" if of.test_accuracy is None else f"test accuracy {of.test_accuracy:.2%}"


def best_of(best: Best) -> str:
    """The figure alone, such as "93.10%"."""
    return figure(best.score, best.regression is not None)


def figure(score: float, of_numbers: bool) -> str:
    """An accuracy in percent, or an R^2."""
    return f"{score:.4f}" if of_numbers else f"{score:.2%}"


def score_in(record: RoundRecord) -> float | None:
    """The accuracy, or the R^2 where targets are numbers."""
    return record.test_accuracy if record.regression is None else record.regression.r2
