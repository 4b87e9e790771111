"""What a client steps with, by name. A new one is a file in this folder and a line here."""

from fedopt.registry import Registry

OPTIMIZERS = Registry(
    "optimizer",
    {
        "sgd": "fedopt.optimizers.stepper:sgd",
        "adam": "fedopt.optimizers.adam:adam",
        "adamw": "fedopt.optimizers.adam:adamw",
        "sam": "fedopt.optimizers.sam:sam",
    },
)
