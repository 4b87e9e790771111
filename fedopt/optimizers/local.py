"""The experiment's [local] section: how a client trains on its own data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from fedopt.composite import Composite, FamilyField
from fedopt.optimizers import OPTIMIZERS
from fedopt.optimizers.amount import Amount, bounds
from fedopt.optimizers.base import Optimizer
from fedopt.schedules import SCHEDULES
from fedopt.schedules.base import Schedule
from fedopt.section import wrong

State = Literal["reset", "keep", "average", "average-v", "block-v"]

EPOCHS = 5
"""Local epochs if neither epochs nor steps are given."""


class LocalSettings(Composite):
    families: ClassVar[tuple[FamilyField, ...]] = (
        FamilyField("optimizer", "optimizer", OPTIMIZERS, "sgd"),
        FamilyField("schedule", "schedule", SCHEDULES, "constant"),
    )

    optimizer: Optimizer
    """What takes the local steps."""
    schedule: Schedule
    """How the learning rate changes over rounds and steps."""
    lr: float = Field(0.05, gt=0)
    """The learning rate of the local steps."""
    clip: float | None = Field(None, gt=0)
    """Largest Euclidean norm of a client's (corrected) gradient; no clipping when absent."""
    state: State = "reset"
    """What becomes of the optimizer's moments between rounds: they start at zero every time (reset), each client keeps
    its own (keep), or the server averages them (average). It may average the second moment v alone, while the first
    starts at zero (average-v), or its mean over each parameter tensor (block-v)."""
    epochs: Amount | None = None
    """Local work of a round as passes over the client's data; 5 if neither epochs nor steps are given. With
    "uniform(LOW, HIGH)" each client draws a whole number from LOW to HIGH in each round."""
    steps: Amount | None = None
    """Local work of a round as a number of minibatches, in place of epochs."""
    stragglers: float = Field(0.0, ge=0, le=1)
    """The probability with which a client, in a round, does only a part of its work: its epochs (or steps) are then a
    whole number drawn uniformly from 1 to those that it would have done. The server uses what it sends, as FedProx
    does."""
    batch_size: int | Literal["full"] = 16
    """Samples of a minibatch; "full" takes all of the client's samples at every step."""

    if TYPE_CHECKING:

        def __init__(self, **keys: Any) -> None: ...

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
        if self.carries_second_moment and not self.optimizer.second_moment_names:
            raise wrong(
                "state",
                f"{self.state} needs an optimizer with a second moment, as adamw; {self.optimizer.title} has none",
            )
        if self.epochs is None and self.steps is None:
            object.__setattr__(self, "epochs", EPOCHS)
        return self

    @property
    def work(self) -> int | str:
        """Epochs, or steps where they are given."""
        amount = self.epochs if self.steps is None else self.steps
        assert amount is not None
        return amount

    @property
    def carries_second_moment(self) -> bool:
        """Whether a round begins with the second moment of the rounds before, and a first moment of zero."""
        return self.state in ("average-v", "block-v")

    @property
    def is_plain_descent(self) -> bool:
        """Whether a step is y <- y - lr g(y) and nothing else."""
        return self.optimizer.is_plain_descent and self.clip is None

    def notes(self, section: str) -> list[str]:
        """One sentence for each key that was given but that this optimizer does not read, and the optimizer's own."""
        idle = self.state != "reset" and not self.optimizer.moment_names
        without = [f"{section}.state is not used by {self.optimizer.name}: it has no moments here"] if idle else []
        whole = self.stragglers > 0 and bounds(self.work)[1] == 1
        key = "epochs" if self.steps is None else "steps"
        if whole:
            without.append(f"{section}.stragglers has no effect: there is no part of {section}.{key} = 1")
        return self.optimizer.advice() + without + super().notes(section)
