"""Kronecker-factored curvature of a client's minibatch loss, by curvlinops, on a copy of the module."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedopt.errors import InvalidExperiment
from fedopt.task import Task
from fedopt.vectors.layout import Layout

LAYERS = (nn.Linear, nn.Conv2d)


class KroneckerFactors:
    """The generalized Gauss-Newton matrix, layer by layer, each block a Kronecker product."""

    def __init__(self, task: Task, layout: Layout) -> None:
        """InvalidExperiment where curvlinops is missing, or has no factors for the task."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # of a library that it imports
                import curvlinops
        except ImportError:
            raise InvalidExperiment(
                'local.optimizer: kfac needs curvlinops; install it with pip install "fedopt[kfac]"'
            ) from None
        layers = [module for module in task.module.modules() if isinstance(module, LAYERS)]
        covered = {id(parameter) for layer in layers for parameter in layer.parameters()}
        others = [name for name, p in task.module.named_parameters() if p.requires_grad and id(p) not in covered]
        if others:
            raise InvalidExperiment(
                f"local.optimizer: kfac has factors for linear layers and convolutions alone, and {others[0]} is of "
                "neither; choose a model such as mlp"
            )
        if task.loss is not F.cross_entropy:
            raise InvalidExperiment("local.optimizer: kfac is for the cross-entropy; leave out model.loss")
        self._library, self._layout = curvlinops, layout
        self._module = copy.deepcopy(task.module)
        parameters = dict(self._module.named_parameters())
        self._parameters = [parameters[name] for name in layout.names]

    def inverse(self, flat: Tensor, x: Tensor, y: Tensor, damping: float) -> Callable[[Tensor], Tensor]:
        """v [P] -> (F + damping I)^-1 v, for the parameters `flat` [P]."""
        for parameter, value in zip(self._parameters, self._layout.split(flat).values(), strict=True):
            parameter.data = value.clone()
        with torch.enable_grad():
            factors = self._library.KFACLinearOperator(
                self._module,
                nn.CrossEntropyLoss(),
                self._parameters,
                [(x, y)],
                fisher_type="type-2",
                separate_weight_and_bias=False,
                check_deterministic=False,
            )
            inverse = self._library.KFACInverseLinearOperator(factors, damping=damping, use_exact_damping=True)

            def solve(vector: Tensor) -> Tensor:
                found: Tensor = inverse @ vector
                return found.detach()

            return solve
