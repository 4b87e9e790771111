"""Adam on the server: Reddi et al., "Adaptive Federated Optimization", ICLR 2021 (arXiv:2003.00295), Algorithm 2.

    v <- beta_2 v + (1 - beta_2) D^2

with the rest of `adaptive`. Unlike Adam of local optimizers it corrects no bias.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from fedopt.server_optimizers.adaptive import Adaptive
from fedopt.server_optimizers.base import Decay


class ServerAdam(Adaptive):
    server_betas: tuple[Decay, Decay] = Field((0.9, 0.99), strict=False)
    """Decay rates of the running means of the mean update and of its square."""

    @property
    def _beta1(self) -> float:
        return self.server_betas[0]

    def _next_v(self, v: Tensor, squared: Tensor) -> Tensor:
        return self.server_betas[1] * v + (1 - self.server_betas[1]) * squared
