"""Server optimizers by name. A new one is a file in this folder and an entry here."""

from fedopt.registry import Entry, Registry

SERVER_OPTIMIZERS = Registry(
    "server optimizer",
    {
        "sgd": Entry(
            "fedopt.server_optimizers.sgd:ServerSgd",
            "along the mean update, with heavy-ball or Nesterov momentum if asked for",
            "Hsu et al. 2019, arXiv:1909.06335",
            "v ← server_momentum v + D;  x ← x + server_lr v",
        ),
        "adagrad": Entry(
            "fedopt.server_optimizers.adagrad:ServerAdagrad",
            "scaled by the sum of all squared mean updates",
            "Reddi et al. 2021, arXiv:2003.00295",
            "m ← β₁ m + (1 − β₁) D;  v ← v + D²;  x ← x + server_lr m / (√v + server_tau)",
        ),
        "adam": Entry(
            "fedopt.server_optimizers.adam:ServerAdam",
            "scaled by a running mean of squared mean updates",
            "Reddi et al. 2021, arXiv:2003.00295",
            "m ← β₁ m + (1 − β₁) D;  v ← β₂ v + (1 − β₂) D²;  x ← x + server_lr m / (√v + server_tau)",
        ),
        "yogi": Entry(
            "fedopt.server_optimizers.yogi:ServerYogi",
            "as adam, and v changes by at most (1 − β₂) D²",
            "Reddi et al. 2021, arXiv:2003.00295",
            "m ← β₁ m + (1 − β₁) D;  v ← v − (1 − β₂) D² sign(v − D²);  x ← x + server_lr m / (√v + server_tau)",
        ),
    },
    base="fedopt.server_optimizers.base:ServerOptimizer",
    plugins="server_optimizer",
)
