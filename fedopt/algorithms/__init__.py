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
    },
    base="fedopt.algorithms.base:Algorithm",
)
