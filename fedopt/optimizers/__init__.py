"""Local optimizers by name. A new one is a file in this folder and an entry here."""

from fedopt.registry import Entry, Registry

OPTIMIZERS = Registry(
    "optimizer",
    {
        "sgd": Entry(
            "fedopt.optimizers.sgd:Sgd",
            "minibatch SGD; momentum and nesterov as in torch.optim.SGD",
            "Sutskever et al. 2013, ICML",
            "v ← momentum v + g + weight_decay θ;  θ ← θ − lr v",
        ),
        "adam": Entry(
            "fedopt.optimizers.adam:Adam",
            "steps scaled by running means of the gradient and its square",
            "Kingma, Ba 2015, arXiv:1412.6980",
            "m ← β₁ m + (1 − β₁) g;  s ← β₂ s + (1 − β₂) g²;  θ ← θ − lr m̂ / (√ŝ + eps)",
        ),
        "adamw": Entry(
            "fedopt.optimizers.adamw:AdamW",
            "Adam with weight decay apart from the gradient",
            "Loshchilov, Hutter 2019, arXiv:1711.05101",
            "θ ← θ − lr weight_decay θ;  then Adam's step",
        ),
        "sam": Entry(
            "fedopt.optimizers.sam:Sam",
            "sharpness-aware: the gradient at a worst point within rho, around any base",
            "Foret et al. 2021, arXiv:2010.01412",
            "the base's step with the gradient at θ + rho g / |g|",
        ),
    },
    base="fedopt.optimizers.base:Optimizer",
)
