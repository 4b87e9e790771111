"""Yogi on the server: Reddi et al., "Adaptive Federated Optimization", ICLR 2021 (arXiv:2003.00295), Algorithm 2.

    v <- v - (1 - beta_2) D^2 sign(v - D^2)

with the rest of `adaptive`. v stays positive: it falls only where D^2 < v, and then by less than v.
"""

from __future__ import annotations

from torch import Tensor

from fedopt.server_optimizers.adam import ServerAdam


class ServerYogi(ServerAdam):
    def _next_v(self, v: Tensor, squared: Tensor) -> Tensor:
        return v - (1 - self.server_betas[1]) * squared * (v - squared).sign()
