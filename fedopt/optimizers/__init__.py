"""What a client steps with, by name. A new one is a file in this folder and a line here."""

from fedopt.registry import Registry

OPTIMIZERS = Registry(
    "optimizer",
    {
        "sgd": "fedopt.optimizers.stepper:sgd",
        "adam": "fedopt.optimizers.stepper:adam",
        "adamw": "fedopt.optimizers.stepper:adamw",
        "sam": "fedopt.optimizers.sam:sam",
    },
)
