"""AdamW: Loshchilov, Hutter, "Decoupled Weight Decay Regularization", ICLR 2019 (arXiv:1711.05101), Algorithm 2.

Adam with theta <- theta - lr * weight_decay * theta before each step, as in torch.optim.AdamW.
"""

from __future__ import annotations

from typing import ClassVar

from fedopt.optimizers.adam import Adam


class AdamW(Adam):
    is_decoupled: ClassVar[bool] = True

    def advice(self) -> list[str]:
        return ["adamw with local.weight_decay = 0 is adam; 0.01 is usual"] if self.weight_decay == 0 else []
