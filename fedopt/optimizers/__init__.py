"""Local optimizers by name. A new one is a file in this folder and an entry here."""

from fedopt.registry import Entry, Registry

OPTIMIZERS = Registry(
    "optimizer",
    {
        "sgd": Entry(
            "fedopt.optimizers.sgd:Sgd",
            "minibatch SGD; momentum, dampening and Nesterov as in torch.optim.SGD",
            "Sutskever et al. 2013, ICML",
            "v ← momentum v + g + weight_decay θ;  θ ← θ − lr v",
        ),
        "averaged-gradient": Entry(
            "fedopt.optimizers.averaged_gradient:AveragedGradient",
            "descent along a running mean of the gradients",
            "Polyak 1964, USSR Comput. Math. 4(5)",
            "M ← beta M + (1 − beta) g;  θ ← θ − lr M",
        ),
        "asgd": Entry(
            "fedopt.optimizers.asgd:Asgd",
            "SGD; the client sends the average of its iterates (Polyak-Ruppert)",
            "Polyak, Juditsky 1992, SIAM J. Control Optim. 30(4)",
            "z ← (1 − lambd lr_t) z − lr_t g(z);  θ ← mean of the z;  lr_t = lr / (1 + lambd lr t)^exponent",
        ),
        "adagrad": Entry(
            "fedopt.optimizers.adagrad:Adagrad",
            "steps scaled by the root of the sum of squared gradients",
            "Duchi, Hazan, Singer 2011, JMLR 12",
            "G ← G + g²;  θ ← θ − lr g / (√G + eps)",
        ),
        "rmsprop": Entry(
            "fedopt.optimizers.rmsprop:RmsProp",
            "steps scaled by a running root mean square; with momentum, or centered",
            "Tieleman, Hinton 2012, Coursera lecture 6.5",
            "v ← a v + (1 − a) g²;  b ← momentum b + g / (√v + eps);  θ ← θ − lr b,  a = smoothing",
        ),
        "adam": Entry(
            "fedopt.optimizers.adam:Adam",
            "steps scaled by running means of the gradient and its square",
            "Kingma, Ba 2015, arXiv:1412.6980",
            "m ← β₁ m + (1 − β₁) g;  s ← β₂ s + (1 − β₂) g²;  θ ← θ − lr m̂ / (√ŝ + eps)",
        ),
        "adamw": Entry(
            "fedopt.optimizers.adamw:AdamW",
            "Adam with decoupled weight decay",
            "Loshchilov, Hutter 2019, arXiv:1711.05101",
            "θ ← θ − lr weight_decay θ;  then Adam's step",
        ),
        "amsgrad": Entry(
            "fedopt.optimizers.amsgrad:Amsgrad",
            "Adam that divides by the largest running mean of squares so far",
            "Reddi et al. 2018, arXiv:1904.09237",
            "θ ← θ − lr m / √v_max,  v_max ← max(v_max, v);  no bias correction, v ≥ eps² at first",
        ),
        "nadam": Entry(
            "fedopt.optimizers.nadam:NAdam",
            "Adam with Nesterov's momentum",
            "Dozat 2016, ICLR Workshop",
            "θ ← θ − lr (a m + b g) / (√v̂ + eps), with the a and b of Nesterov's momentum, corrected for bias",
        ),
        "radam": Entry(
            "fedopt.optimizers.radam:RAdam",
            "Adam with a rectified step size in the first steps",
            "Liu et al. 2020, arXiv:1908.03265",
            "θ ← θ − lr r_t m̂ / (√v̂ + eps) if ρ_t > 5, else θ ← θ − lr m̂",
        ),
        "lion": Entry(
            "fedopt.optimizers.lion:Lion",
            "the sign of momentum and gradient, with decoupled weight decay",
            "Chen et al. 2023, arXiv:2302.06675",
            "θ ← θ − lr (sign(β₁ m + (1 − β₁) g) + weight_decay θ);  m ← β₂ m + (1 − β₂) g",
        ),
        "muon": Entry(
            "fedopt.optimizers.muon:Muon",
            "orthogonalized momentum for matrices, AdamW for vectors",
            "Jordan et al. 2024, kellerjordan.github.io/posts/muon",
            "θ ← θ − lr r NewtonSchulz(momentum of g) for an m x n matrix θ;  r = √max(1, m / n)",
        ),
        "sam": Entry(
            "fedopt.optimizers.sam:Sam",
            "sharpness-aware: the gradient at the worst point within rho; wraps any base",
            "Foret et al. 2021, arXiv:2010.01412",
            "the base's step with the gradient at θ + rho g / |g|",
        ),
        "asam": Entry(
            "fedopt.optimizers.asam:Asam",
            "SAM with a radius that scales with the weights; wraps any base",
            "Kwon et al. 2021, arXiv:2102.11600",
            "the base's step with the gradient at θ + rho T² g / |T g|,  T = |θ| + eta",
        ),
        "lookahead": Entry(
            "fedopt.optimizers.lookahead:Lookahead",
            "slow weights follow the fast weights of any base, every few steps",
            "Zhang et al. 2019, arXiv:1907.08610",
            "after every sync_period steps of the base:  φ ← φ + slow_step (θ − φ);  θ ← φ",
        ),
        "larc": Entry(
            "fedopt.optimizers.larc:Larc",
            "a rate per parameter tensor, from norms of weights and gradient; wraps any base",
            "You, Gitman, Ginsburg 2017, arXiv:1708.03888",
            "λ = trust |w| / (|g| + weight_decay |w|);  the base's step with min(λ / lr, 1) (g + weight_decay w)",
        ),
        "lars": Entry(
            "fedopt.optimizers.lars:Lars",
            "SGD with momentum and a rate for each parameter tensor, as in the paper",
            "You, Gitman, Ginsburg 2017, arXiv:1708.03888",
            "λ = trust |w| / (|g| + weight_decay |w|);  v ← momentum v + lr λ (g + weight_decay w);  w ← w − v",
        ),
        "sag": Entry(
            "fedopt.optimizers.sag:Sag",
            "the mean of each sample's last gradient, from a table; for small data",
            "Le Roux, Schmidt, Bach 2012, arXiv:1202.6258",
            "t_j ← g_j;  θ ← θ − lr Σt / (samples seen)",
        ),
        "saga": Entry(
            "fedopt.optimizers.saga:Saga",
            "SAG with unbiased gradients; for small data",
            "Defazio, Bach, Lacoste-Julien 2014, arXiv:1407.0202",
            "θ ← θ − lr (g_j − t_j + Σt / n);  t_j ← g_j",
        ),
        "newton": Entry(
            "fedopt.optimizers.newton:Newton",
            "damped Newton steps with a dense Hessian; for small models",
            "Levenberg 1944, Quart. Appl. Math. 2(2)",
            "θ ← θ − lr (H + damping I)⁻¹ g",
        ),
        "kfac": Entry(
            "fedopt.optimizers.kfac:Kfac",
            "natural-gradient steps with a Kronecker-factored Fisher; for small models",
            "Martens, Grosse 2015, arXiv:1503.05671",
            "θ ← θ − lr (F + damping I)⁻¹ g",
        ),
        "lbfgs": Entry(
            "fedopt.optimizers.lbfgs:Lbfgs",
            "limited-memory BFGS on full batches, by torch.optim.LBFGS",
            "Liu, Nocedal 1989, Math. Program. 45",
            "θ ← θ − lr B g,  B ≈ H⁻¹ from the last history_size steps",
        ),
    },
    base="fedopt.optimizers.base:Optimizer",
)
