"""Model families by name. A new one is a file in this folder and an entry here; a user's own is module:function.

`torchvision:NAME` and `timm:NAME` are models of these libraries.
"""

from fedopt.registry import Entry, Registry

MODELS = Registry(
    "model",
    {
        "logistic": Entry("fedopt.models.dense:Logistic", "multinomial logistic regression on flattened samples"),
        "mlp": Entry(
            "fedopt.models.dense:Mlp",
            "multilayer perceptron with ReLU; hidden = [200, 200] by default",
            "McMahan et al. 2017, arXiv:1602.05629",
        ),
        "cnn": Entry(
            "fedopt.models.convolutional:Cnn",
            "LeNet-style: convolutions 5x5x6 and 5x5x16, dense 120 and 84",
            "Li et al. 2022, arXiv:2102.02079",
        ),
        "cnn-mcmahan": Entry(
            "fedopt.models.convolutional:CnnMcMahan",
            "convolutions 5x5x32 and 5x5x64, dense 512",
            "McMahan et al. 2017, arXiv:1602.05629",
        ),
        "resnet8": Entry(
            "fedopt.models.resnet:ResNet8",
            "residual network with GroupNorm, 78k parameters",
            "He et al. 2016, arXiv:1512.03385; Hsieh et al. 2020, arXiv:1910.00189",
        ),
        "resnet18": Entry(
            "fedopt.models.resnet:ResNet18",
            "residual network with GroupNorm, 11.2M parameters",
            "He et al. 2016, arXiv:1512.03385; Hsieh et al. 2020, arXiv:1910.00189",
        ),
        "gru": Entry(
            "fedopt.models.recurrent:Gru",
            "next character: an embedding of 8, two GRU layers of 256",
            "Cho et al. 2014, arXiv:1406.1078",
        ),
        "lstm": Entry(
            "fedopt.models.recurrent:Lstm",
            "the same with LSTM layers",
            "McMahan et al. 2017, arXiv:1602.05629",
        ),
        "object": Entry(
            "fedopt.models.own:OwnModel", "a module or function of Python code: fedopt.run(..., model=...)"
        ),
    },
    base="fedopt.models.base:ModelFamily",
    other="fedopt.models.custom:CustomModel",
    prefixes={
        "torchvision": Entry(
            "fedopt.models.torchvision_models:TorchvisionModel",
            'a classification model of torchvision, as torchvision:resnet18; norm = "group" replaces BatchNorm',
        ),
        "timm": Entry(
            "fedopt.models.timm_models:TimmModel",
            'a model of timm, as timm:resnet18; norm = "group" replaces BatchNorm; extra timm',
        ),
    },
)

LOSSES = Registry(
    "loss",
    {
        "cross_entropy": Entry(
            "torch.nn.functional:cross_entropy", "of logits; label_smoothing and class_weights are keys"
        ),
        "nll_loss": Entry("torch.nn.functional:nll_loss", "for models that end in log_softmax"),
        "multi_margin_loss": Entry("torch.nn.functional:multi_margin_loss", "a hinge loss over the classes"),
        "mse_loss": Entry("torch.nn.functional:mse_loss", "squared error of numbers, or of 0 and 1 for each class"),
        "l1_loss": Entry("torch.nn.functional:l1_loss", "absolute error of numbers, or of 0 and 1 for each class"),
        "kl_div": Entry("torch.nn.functional:kl_div", "from the softmax of the outputs to a distribution over classes"),
        "binary_cross_entropy_with_logits": Entry(
            "torch.nn.functional:binary_cross_entropy_with_logits", "for several labels a sample, each 0 or 1"
        ),
    },
)
"""Losses of torch.nn.functional."""
