"""`fedopt demo`: what optimizers do, on problems whose answer is known."""

from __future__ import annotations

from fedopt.commands.lazy import Entry, lazy_group

app = lazy_group(
    "demo",
    {
        "paths": Entry("simulations.commands.demo_paths:app", "All optimizers on losses of two weights."),
        "rates": Entry("simulations.commands.demo_rates:app", "Convergence against theory, on quadratics."),
        "drift": Entry("simulations.commands.demo_drift:app", "Two clients pull a model apart."),
        "generalization": Entry(
            "simulations.commands.demo_generalization:app", "Training and test: the gap, random labels, batches."
        ),
        "amsgrad": Entry("simulations.commands.demo_amsgrad:app", "Where Adam does not converge and AMSGrad does."),
        "lookahead": Entry("simulations.commands.demo_lookahead:app", "Lookahead on a noisy quadratic."),
        "weight-decay": Entry("simulations.commands.demo_weight_decay:app", "L2 against decoupled decay under Adam."),
    },
)


@app.callback()
def demo() -> None:
    """See what an optimizer does, in seconds. Each command prints its findings, and writes figure and numbers."""
