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
        "amsgrad": Entry(
            "fedopt.optimizers.amsgrad:Amsgrad",
            "Adam that divides by the largest running mean of squares so far",
            "Reddi et al. 2018, arXiv:1904.09237",
            "θ ← θ − lr m / √v_max,  v_max ← max(v_max, v);  no bias correction, v ≥ eps² at first",
        ),
        "muon": Entry(
            "fedopt.optimizers.muon:Muon",
            "orthogonalized momentum for matrices, AdamW for vectors",
            "Jordan et al. 2024, kellerjordan.github.io/posts/muon",
            "θ ← θ − lr r NewtonSchulz(momentum of g) for an m x n matrix θ;  r = √max(1, m / n)",
        ),
        "sam": Entry(
            "fedopt.optimizers.sam:Sam",
            "sharpness-aware: the gradient at a worst point within rho, around any base",
            "Foret et al. 2021, arXiv:2010.01412",
            "the base's step with the gradient at θ + rho g / |g|",
        ),
        "asam": Entry(
            "fedopt.optimizers.asam:Asam",
            "sam in a ball that grows with the weights, around any base",
            "Kwon et al. 2021, arXiv:2102.11600",
            "the base's step with the gradient at θ + rho T² g / |T g|,  T = |θ| + eta",
        ),
    },
    base="fedopt.optimizers.base:Optimizer",
)
