"""What docs/optimizers.md says about single optimizers beside their keys."""

from __future__ import annotations

from collections.abc import Mapping

NOTES: Mapping[str, str] = {
    "sgd": (
        'Nesterov\'s momentum has two forms. `nesterov_form = "torch"` is that of torch.optim.SGD: θ ← θ − lr (g(θ) + '
        'momentum v), with the new v. `"look-ahead"` is how courses and papers write it: v ← momentum v + g(θ − lr '
        "momentum v), θ ← θ − lr v. At a constant rate torch's θ are the points at which the second evaluates its "
        "gradients, so both see the same gradients, and after K steps their models differ by lr momentum v_K. Under a "
        "schedule they are different methods. The training loss of the second is the one at its look-ahead points."
    ),
    "averaged-gradient": (
        "Courses call it SAG at times. It is the heavy ball with another unit of the rate: `sgd` with momentum = beta "
        "takes the same steps at lr (1 − beta). The stochastic average gradient of Le Roux, Schmidt and Bach has a "
        "table of gradients and is another method."
    ),
    "asgd": (
        "Gradients are evaluated at z, and the client sends θ, the mean of the z from the step `average_from` of the "
        "round on. Both start at the server's model in each round. torch's t0 is average_from − 2."
    ),
    "lion": (
        "Every entry moves by lr at every step, however small its gradient: at a constant rate it stops at no optimum, "
        "under SCAFFOLD neither."
    ),
    "lookahead": (
        "The base's moments go on over a synchronization, as in the authors' code by default; the paper also resets or "
        "interpolates them. The slow weights start at the server's model in each round. A client whose number of steps "
        "is no multiple of `sync_period` sends the fast weights that its last steps have led to, with fewer steps than "
        "that the base's model: let sync_period divide local.steps."
    ),
    "larc": (
        "The base's weight decay enters before the factor, unless it decays the weights themselves, as adamw does. A "
        "tensor whose weights or gradients are all zero has the factor 1. Near an optimum the factor of `clip` is 1; "
        "steps of `scale` do not shrink with the gradient, and stop nowhere at a constant rate."
    ),
    "lars": (
        "The rate stands inside the momentum, other than in sgd. A tensor whose weights or gradients are all zero has "
        "λ = 1. Steps do not shrink with the gradient, and stop nowhere at a constant rate."
    ),
    "sag": (
        "The table starts at zero in each round, so a round should be several epochs. It takes the memory of as many "
        "models as a client has samples. A step is one sample: `local.batch_size` = 1. The courses' averaged gradient "
        "is `averaged-gradient`."
    ),
    "saga": "As `sag`, unbiased with any table, the empty one too.",
    "newton": (
        "H is the derivative of the corrected gradient on the minibatch, dense and of one client at a time. `damping` "
        "must be above the magnitude of its negative eigenvalues, which networks have: along these a smaller one goes "
        "uphill. Above `most_parameters` it is refused with the memory that it would take."
    ),
    "lbfgs": (
        "An iteration is a local step, with one gradient and no line search; the first of a round is lr min(1, 1 / "
        '‖g‖₁) g, and `local.lr` = 1 is the quasi-Newton step. `local.batch_size` must be "full", and the history '
        "starts anew in each round."
    ),
    "kfac": (
        "F is a block for each linear layer or convolution, a Kronecker product of two small matrices, of the loss of "
        "the minibatch at θ; it is computed anew at every step by curvlinops, with the exact expectation over labels "
        '(`pip install "fedopt[kfac]"`). What an algorithm or a penalty adds is in g, not in F.'
    ),
}
