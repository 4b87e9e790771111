"""Data sources and partitions by name. A new one is a file in a folder below and a line here."""

from fedopt.registry import Registry

_TORCHVISION = "fedopt.data.sources.torchvision_sets:load"

SOURCES = Registry(
    "data set",
    {
        "digits": "fedopt.data.sources.digits:load",
        "synthetic": "fedopt.data.sources.synthetic:load",
        "mnist": _TORCHVISION,
        "fashionmnist": _TORCHVISION,
        "emnist": _TORCHVISION,
        "cifar10": _TORCHVISION,
        "cifar100": _TORCHVISION,
        "svhn": _TORCHVISION,
        "folder": "fedopt.data.sources.folder:load",
        "npz": "fedopt.data.sources.npz:load",
    },
)

PARTITIONS = Registry(
    "partition",
    {
        "iid": "fedopt.data.partitions.even:iid",
        "dirichlet": "fedopt.data.partitions.dirichlet:dirichlet",
        "dirichlet-balanced": "fedopt.data.partitions.dirichlet:dirichlet_balanced",
        "shards": "fedopt.data.partitions.by_label:shards",
        "classes": "fedopt.data.partitions.by_label:classes",
        "quantity": "fedopt.data.partitions.dirichlet:quantity",
        "natural": "fedopt.data.partitions.even:natural",
    },
)
