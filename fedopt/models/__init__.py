"""Model families by name. A new one is a file in this folder and a line here; a user's own is module:function."""

from fedopt.registry import Registry

MODELS = Registry(
    "model",
    {
        "logistic": "fedopt.models.dense:Logistic",
        "mlp": "fedopt.models.dense:Mlp",
        "cnn": "fedopt.models.convolutional:Cnn",
        "cnn-mcmahan": "fedopt.models.convolutional:CnnMcMahan",
        "resnet8": "fedopt.models.resnet:ResNet8",
        "resnet18": "fedopt.models.resnet:ResNet18",
    },
)
