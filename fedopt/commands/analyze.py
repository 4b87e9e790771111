"""`fedopt analyze`: what a finished run has found."""

from __future__ import annotations

from fedopt.commands.lazy import Entry, lazy_group

app = lazy_group(
    "analyze",
    {
        "landscape": Entry(
            "simulations.commands.analyze_landscape:app", "The loss on lines and planes through a run's models."
        ),
        "sharpness": Entry(
            "simulations.commands.analyze_sharpness:app", "The Hessian's eigenvalues, flatness, and gradient noise."
        ),
    },
)


@app.callback()
def analyze() -> None:
    """Analyze the model of a finished run. Figures and numbers go to the folder analysis/ in its directory."""
