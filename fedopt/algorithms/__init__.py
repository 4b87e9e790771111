"""Federated algorithms by name. A new one is a file in this folder and a line here."""

from fedopt.registry import Registry

ALGORITHMS = Registry(
    "algorithm",
    {
        "fedavg": "fedopt.algorithms.fedavg:FedAvg",
        "scaffold": "fedopt.algorithms.scaffold:Scaffold",
    },
)
