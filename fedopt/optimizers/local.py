"""The experiment's [local] section: how a client works on its own data."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from fedopt.optimizers import OPTIMIZERS
from fedopt.section import Section, wrong

Decay = Annotated[float, Field(ge=0, lt=1)]

KEYS_OF = {
    "sgd": {"momentum", "nesterov", "weight_decay"},
    "adam": {"betas", "eps", "weight_decay"},
    "adamw": {"betas", "eps", "weight_decay"},
}
"""Which keys each inner optimizer reads, beside `lr`."""

KEYS_OF_SAM = {"rho", "p", "base"}
"""Which keys SAM reads, beside those of the optimizer that it wraps."""

EPOCHS = 5
"""Local epochs where neither epochs nor steps are given."""


class LocalSettings(Section):
    optimizer: Annotated[str, AfterValidator(OPTIMIZERS.check)] = "sgd"
    base: Literal["sgd", "adam", "adamw"] = "sgd"
    """What SAM steps with."""
    lr: float = Field(0.05, gt=0)
    momentum: Decay = 0.0
    nesterov: bool = False
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[Decay, Decay] = Field((0.9, 0.999), strict=False)
    eps: float = Field(1e-8, gt=0)
    rho: float = Field(0.05, ge=0)
    """Radius of SAM's ball, in the p-norm over all parameters of a client."""
    p: float = Field(2.0, ge=1, allow_inf_nan=True)
    clip: float | None = Field(None, gt=0)
    """Largest Euclidean norm of a client's (corrected) gradient; no clipping when absent."""
    epochs: int | None = Field(None, ge=1)
    steps: int | None = Field(None, ge=1)
    """Local work a round: passes over the client's data (5 by default), or a number of minibatches."""
    batch_size: int | Literal["full"] = 16

    @field_validator("batch_size")
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError(f'a batch holds at least 1 sample, not {value}; or write "full"')
        return value

    @model_validator(mode="after")
    def _consistent(self) -> LocalSettings:
        if self.epochs is not None and self.steps is not None:
            raise wrong("steps", "give epochs or steps, not both")
        if self.epochs is None and self.steps is None:
            object.__setattr__(self, "epochs", EPOCHS)
        if self.nesterov and self.momentum == 0:
            raise wrong("nesterov", "needs momentum above 0, for example momentum = 0.9")
        return self

    @property
    def stepper(self) -> str:
        """The inner optimizer that takes the steps."""
        return self.base if self.optimizer == "sam" else self.optimizer

    @property
    def is_plain_descent(self) -> bool:
        """Whether a step is y <- y - lr g(y) and nothing else."""
        bare = self.optimizer == "sgd" and self.momentum == 0 and self.weight_decay == 0
        return bare and self.clip is None

    @property
    def unread(self) -> set[str]:
        """Keys that this optimizer does not read, set or not."""
        read = KEYS_OF[self.stepper] | (KEYS_OF_SAM if self.optimizer == "sam" else set())
        return KEYS_OF_SAM.union(*KEYS_OF.values()) - read

    def notes(self) -> list[str]:
        """One sentence for each key that was set but that this optimizer does not read."""
        defaults = LocalSettings()
        adamw_as_adam = ["adamw with local.weight_decay = 0 is adam; 0.01 is usual"]
        return (adamw_as_adam if self.stepper == "adamw" and self.weight_decay == 0 else []) + [
            f"local.{key} is not used by {self.optimizer}"
            for key in sorted(self.unread)
            if getattr(self, key) != getattr(defaults, key)
        ]
