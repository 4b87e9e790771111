"""Federated algorithms by name. A new one is a file in this folder and an entry here."""

from fedopt.registry import Entry, Registry

ALGORITHMS = Registry(
    "algorithm",
    {
        "fedavg": Entry(
            "fedopt.algorithms.fedavg:FedAvg",
            "local steps, then the server averages the updates",
            "McMahan et al. 2017, arXiv:1602.05629",
            "x ← x + server_lr Σ wᵢ (yᵢ − x)",
        ),
        "scaffold": Entry(
            "fedopt.algorithms.scaffold:Scaffold",
            "control variates correct each local gradient for client drift",
            "Karimireddy et al. 2020, arXiv:1910.06378",
            "local steps on g − cᵢ + c;  x ← x + server_lr Σ wᵢ (yᵢ − x);  c ← c + Σ pᵢ (cᵢ⁺ − cᵢ)",
        ),
        "local": Entry(
            "fedopt.algorithms.local:LocalOnly",
            "baseline: each client alone, on its own data",
            "",
            "vᵢ ← vᵢ − lr gᵢ(vᵢ);  x ← x",
        ),
        "central": Entry(
            "fedopt.algorithms.central:Central",
            "baseline: all data in one place, as many samples a round",
            "",
            "y ← y − lr g(y) on all data;  x ← x + server_lr (y − x)",
        ),
        "finetune": Entry(
            "fedopt.algorithms.finetune:FineTune",
            "personal: FedAvg; each client uses the model after its last local steps",
            "Wang et al. 2019, arXiv:1910.10252",
            "x ← x + server_lr Σ wᵢ (yᵢ − x);  vᵢ ← yᵢ",
        ),
        "fedper": Entry(
            "fedopt.algorithms.fedper:FedPer",
            "personal: FedAvg with layers that each client keeps for itself",
            "Arivazhagan et al. 2019, arXiv:1912.00818",
            "as fedavg for the shared layers; the private ones stay with the client",
        ),
        "ditto": Entry(
            "fedopt.algorithms.ditto:Ditto",
            "personal: FedAvg, and each client trains a model of its own near x",
            "Li et al. 2021, arXiv:2012.04221",
            "x as in fedavg;  vᵢ ← vᵢ − lr (gᵢ(vᵢ) + λ (vᵢ − x))",
        ),
        "fedadamw": Entry(
            "fedopt.algorithms.fedadamw:FedAdamW",
            "local AdamW with averaged v (a mean per tensor), plus the last global update",
            "Liu et al. 2025, arXiv:2510.27486",
            "y ← y − lr (AdamW's direction + alpha G),  v from Σ wᵢ block means of vᵢ;  G ← −Σ wᵢ (yᵢ − x) / (K lr)",
        ),
        "fedlada": Entry(
            "fedopt.algorithms.fedlada:FedLADA",
            "local AMSGrad with averaged v, mixed with the last global update",
            "Sun et al. 2023, arXiv:2308.00522",
            "y ← y − lr (alpha m / √v_max + (1 − alpha) G),  v from Σ wᵢ v_maxᵢ;  G ← −Σ wᵢ (yᵢ − x) / (K lr)",
        ),
        "fedmuon": Entry(
            "fedopt.algorithms.fedmuon:FedMuon",
            "local Muon with control variates, as in SCAFFOLD, before the orthogonalization",
            "Takezawa et al. 2025, arXiv:2509.26337",
            "y ← y − lr r NewtonSchulz(Mᵢ − Cᵢ + C);  Cᵢ⁺ = Mᵢ;  C ← C + Σ pᵢ (Cᵢ⁺ − Cᵢ)",
        ),
        "fedavgm": Entry(
            "fedopt.algorithms.fedavgm:FedAvgM",
            "FedAvg with momentum on the server",
            "Hsu et al. 2019, arXiv:1909.06335",
            "v ← server_momentum v + Σ wᵢ (yᵢ − x);  x ← x + server_lr v",
        ),
        "fedadagrad": Entry(
            "fedopt.algorithms.fedadagrad:FedAdagrad",
            "FedAvg with Adagrad on the server",
            "Reddi et al. 2021, arXiv:2003.00295",
            "D = Σ wᵢ (yᵢ − x);  v ← v + D²;  x ← x + server_lr D / (√v + server_tau)",
        ),
        "fedadam": Entry(
            "fedopt.algorithms.fedadam:FedAdam",
            "FedAvg with Adam on the server",
            "Reddi et al. 2021, arXiv:2003.00295",
            "m ← β₁ m + (1 − β₁) D;  v ← β₂ v + (1 − β₂) D²;  x ← x + server_lr m / (√v + server_tau)",
        ),
        "fedyogi": Entry(
            "fedopt.algorithms.fedyogi:FedYogi",
            "FedAvg with Yogi on the server",
            "Reddi et al. 2021, arXiv:2003.00295",
            "as fedadam, with v ← v − (1 − β₂) D² sign(v − D²)",
        ),
        "fedsgd": Entry(
            "fedopt.algorithms.fedsgd:FedSGD",
            "one gradient of each client a round",
            "McMahan et al. 2017, arXiv:1602.05629",
            "x ← x − server_lr lr Σ wᵢ ∇fᵢ(x)",
        ),
        "fedexp": Entry(
            "fedopt.algorithms.fedexp:FedExP",
            "FedAvg with a server rate that adapts to how much the updates differ",
            "Jhunjhunwala et al. 2023, arXiv:2301.09604",
            "D = Σ wᵢ Dᵢ;  x ← x + max(1, Σ wᵢ |Dᵢ|² / (2 (|D|² + eps))) D",
        ),
        "fedacg": Entry(
            "fedopt.algorithms.fedacg:FedACG",
            "clients start from x plus the server's momentum, with a proximal term",
            "Kim et al. 2024, arXiv:2201.03172",
            "yᵢ from z = x + λ m on fᵢ + beta/2 |y − z|²;  m ← λ m + Σ wᵢ (yᵢ − z);  x ← x + m",
        ),
        "diloco": Entry(
            "fedopt.algorithms.diloco:DiLoCo",
            "local AdamW that keeps its moments, Nesterov momentum on the server",
            "Douillard et al. 2023, arXiv:2311.08105",
            "v ← 0.9 v + D;  x ← x + 0.7 (D + 0.9 v)",
        ),
        "fednova": Entry(
            "fedopt.algorithms.fednova:FedNova",
            "normalizes updates by local steps: more steps give a client no more weight",
            "Wang et al. 2020, arXiv:2007.07481",
            "dᵢ = (x − yᵢ) / |aᵢ|;  x ← x − server_lr (Σ wᵢ |aᵢ|) Σ wᵢ dᵢ",
        ),
        "scaffnew": Entry(
            "fedopt.algorithms.scaffnew:Scaffnew",
            "ProxSkip: a random number of corrected local steps; all clients take part",
            "Mishchenko et al. 2022, arXiv:2202.09357",
            "local steps on g − hᵢ, as many as it takes until chance p;  x ← Σ pᵢ yᵢ;  hᵢ ← hᵢ + (p / lr) (x − yᵢ)",
        ),
        "mime": Entry(
            "fedopt.algorithms.mime:Mime",
            "local steps with the server's frozen optimizer state; reduced variance",
            "Karimireddy et al. 2021, arXiv:2008.03606",
            "yᵢ ← yᵢ − lr U(g(yᵢ) − g(x) + ∇f(x), s);  s ← V(∇f(x), s);  x ← x + server_lr Σ wᵢ (yᵢ − x)",
        ),
        "mimelite": Entry(
            "fedopt.algorithms.mimelite:MimeLite",
            "local steps with the server's optimizer state, frozen in the round",
            "Karimireddy et al. 2021, arXiv:2008.03606",
            "yᵢ ← yᵢ − lr U(g(yᵢ), s);  s ← V(Σ wᵢ ∇fᵢ(x), s);  x ← x + server_lr Σ wᵢ (yᵢ − x)",
        ),
        "fedlin": Entry(
            "fedopt.algorithms.fedlin:FedLin",
            "corrects local gradients by full gradients at x; for unequal numbers of steps",
            "Mitra et al. 2021, arXiv:2102.07053",
            "local steps on g − ∇fᵢ(x) + ∇f(x);  x ← x + server_lr Σ wᵢ (yᵢ − x)",
        ),
        "fedprox": Entry(
            "fedopt.algorithms.fedprox:FedProx",
            "a proximal term holds clients near the global model",
            "Li et al. 2020, arXiv:1812.06127",
            "local steps on g + mu (yᵢ − x);  x ← x + server_lr Σ wᵢ (yᵢ − x)",
        ),
        "feddyn": Entry(
            "fedopt.algorithms.feddyn:FedDyn",
            "a proximal and a linear term make the clients' optima agree with the global one",
            "Acar et al. 2021, arXiv:2111.04263",
            "local steps on g − hᵢ + alpha (yᵢ − x);  hᵢ ← hᵢ − alpha (yᵢ − x);  h ← h − alpha Σ pᵢ (yᵢ − x);  "
            "x ← x + server_lr (Σ wᵢ (yᵢ − x) − h / alpha)",
        ),
        "fedcm": Entry(
            "fedopt.algorithms.fedcm:FedCM",
            "client momentum: the last global update is mixed into local gradients",
            "Xu et al. 2021, arXiv:2106.10874",
            "local steps on alpha g + (1 − alpha) Δ;  x ← x + server_lr Σ wᵢ (yᵢ − x);  "
            "Δ ← −Σ wᵢ (yᵢ − x) / Σ wᵢ rᵢ, with rᵢ the sum of the client's rates",
        ),
        "fedsam": Entry(
            "fedopt.algorithms.fedsam:FedSAM",
            "FedAvg whose clients take sharpness-aware steps",
            "Qu et al. 2022, arXiv:2206.02618",
            "local steps on g(yᵢ + rho g / |g|);  x ← x + server_lr Σ wᵢ (yᵢ − x)",
        ),
        "mofedsam": Entry(
            "fedopt.algorithms.mofedsam:MoFedSAM",
            "FedCM with sharpness-aware gradients",
            "Qu et al. 2022, arXiv:2206.02618",
            "local steps on alpha g(yᵢ + rho g / |g|) + (1 − alpha) Δ;  x and Δ as in fedcm",
        ),
        "fedlesam": Entry(
            "fedopt.algorithms.fedlesam:FedLESAM",
            "sharpness-aware: perturbs along the last global update; one gradient a step",
            "Fan et al. 2024, arXiv:2405.18890",
            "local steps on g(yᵢ + rho (xᵢ − x) / |xᵢ − x|), with xᵢ the model the client received last;  "
            "x ← x + server_lr Σ wᵢ (yᵢ − x)",
        ),
        "fedspeed": Entry(
            "fedopt.algorithms.fedspeed:FedSpeed",
            "a corrected proximal term; gradients mixed with those after an ascent step",
            "Sun et al. 2023, arXiv:2302.10429",
            "local steps on (1 − alpha) g(yᵢ) + alpha g(yᵢ + rho g(yᵢ)) − ĝᵢ + (yᵢ − x) / lam;  "
            "ĝᵢ ← ĝᵢ − (yᵢ − x) / lam;  x ← x + server_lr Σ wᵢ (yᵢ − lam ĝᵢ − x)",
        ),
    },
    base="fedopt.algorithms.base:Algorithm",
)
