"""What an observer may read of a run in progress: the experiment, the directory, the current global model."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

from torch import Tensor, nn

from fedopt.experiment.experiment import Experiment


class RunView:
    """A run in progress, read-only. What it returns are copies: changing them does not change the run.

    >>> def norms(record, run):                                        # doctest: +SKIP
    ...     print(record.round, run.weights()["1.weight"].norm())
    >>> fedopt.run(fedopt.Experiment(), observers=[norms])             # doctest: +SKIP
    """

    def __init__(
        self, experiment: Experiment, directory: Path, module: nn.Module, weights: Callable[[], dict[str, Tensor]]
    ) -> None:
        """`module` has the architecture; `weights` returns the current global state_dict as CPU copies."""
        self.experiment = experiment
        """The experiment that is run."""
        self.directory = directory
        """The run's directory."""
        self._module, self._weights = module, weights

    def model(self) -> nn.Module:
        """A copy of the model with the current global weights, in eval mode, on the run's device and in its dtype."""
        model = deepcopy(self._module)
        model.zero_grad(set_to_none=True)
        model.load_state_dict(self._weights())
        return model.eval()

    def weights(self) -> dict[str, Tensor]:
        """The current global model's state_dict, as copies on the CPU."""
        return self._weights()
