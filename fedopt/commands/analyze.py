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
        "spectrum": Entry(
            "simulations.commands.analyze_spectrum:app", "How clients' gradients differ: covariance, angles, layers."
        ),
    },
)


@app.callback()
def analyze() -> None:
    """Analyze the model of a finished run. Figures and numbers go to the folder analysis/ in its directory."""
