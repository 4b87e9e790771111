"""The experiment's [local] section: how a client trains on its own data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import BaseModel, Field, PrivateAttr, field_validator, model_validator

from fedopt.composite import Composite, FamilyField
from fedopt.errors import InvalidExperiment
from fedopt.optimizers import OPTIMIZERS
from fedopt.optimizers.amount import Amount, bounds
from fedopt.optimizers.augmentation import Augmentation
from fedopt.optimizers.base import Optimizer
from fedopt.optimizers.groups import ParameterGroup, changes_decay, changes_rates
from fedopt.schedules import SCHEDULES
from fedopt.schedules.base import Schedule
from fedopt.schedules.constant import Constant
from fedopt.schedules.curve import Bounded, Curve
from fedopt.schedules.plan import Over, RatePlan, with_horizon
from fedopt.section import wrong

State = Literal["reset", "keep", "average", "average-v", "block-v"]

FAR = 10
"""How many times the usual rate of an optimizer the default of local.lr may be without a note."""

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
    schedule_over: Over = "rounds"
    """What the schedule and the warm-up count: the rounds, the steps within each round, or all steps since the first
    round, of which every round has local.steps. A schedule from outside says itself what it counts."""
    warmup: int = Field(0, ge=0)
    """The first rounds (or steps), in which the rate rises in a straight line before the schedule starts."""
    lr: float = Field(0.05, gt=0)
    """The learning rate of the local steps."""
    scale_lr: Literal["none", "linear", "sqrt"] = "none"
    """Whether local.lr grows with the batch or the cohort, in proportion or as its square root."""
    scale_lr_by: Literal["batch", "cohort"] = "batch"
    """What it grows with: local.batch_size, or the number of clients of a round."""
    scale_lr_base: int | None = Field(None, ge=1)
    """The batch size, or the cohort, that local.lr is meant for."""
    clip: float | None = Field(None, gt=0)
    """Largest Euclidean norm of a client's (corrected) gradient; no clipping when absent."""
    l1: float = Field(0.0, ge=0)
    """The factor of |y|_1 in every client's loss. Records show losses without it."""
    l2: float = Field(0.0, ge=0)
    """The factor of |y|^2 / 2 in every client's loss. It is a part of the gradient that algorithms and optimizers see,
    and weight_decay is the optimizer's. Records show losses without it."""
    groups: tuple[ParameterGroup, ...] = Field((), strict=False)
    """Parameters with a rate or a weight decay of their own, each group a table of parameters (patterns of their names,
    as in model.freeze), lr_factor (what every learning rate is multiplied by for them; 1 by default) and weight_decay
    (theirs in place of the optimizer's). No parameter may be in two groups; others are as without groups."""
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

    crop: int = Field(0, ge=0)
    """Pixels of zeros (the mean color, where images are normalized) around an image, from which a window of the image's
    size is cut at random each time that a minibatch holds it; 0 for the image as it is."""
    flip: bool = False
    """Whether an image in a minibatch is mirrored, left to right, in half of all cases."""

    _around: tuple[int, int] | None = PrivateAttr(None)
    """Rounds, and clients of a round, where the experiment is known."""

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
                f"{self.state} needs an optimizer with a second moment, such as adamw; {self.optimizer.title} has none",
            )
        if self.groups and not self.optimizer.takes_groups:
            told = f"the steps of {self.optimizer.title} solve for all parameters together"
            raise wrong("groups", f"{told}; leave groups out, or choose another optimizer")
        if changes_decay(self.groups) and not self.optimizer.takes_group_decay:
            told = f"{self.optimizer.title} has no weight_decay that may differ between parameters"
            raise wrong("groups", f"{told}; leave weight_decay out of the groups")
        if self.optimizer.batches == "full" and self.batch_size != "full":
            told = f"{self.optimizer.title} compares the gradients of successive steps, so they must be of all samples"
            raise wrong("batch_size", f'{told}; set it to "full"')
        if self.optimizer.batches == "single" and self.batch_size != 1:
            raise wrong("batch_size", f"{self.optimizer.title} keeps a gradient of each sample; set it to 1")
        if self.state != "reset" and self.optimizer.starts_anew:
            told = f"{self.optimizer.title} starts anew in every round; set local.state to reset"
            raise wrong("state", f"{told}, or choose another optimizer")
        if self.augmentation is not None and self.optimizer.batches != "any":
            key, title = "crop" if self.crop else "flip", self.optimizer.title
            raise wrong(key, f"{title} compares gradients of the same samples, which augmentation changes each time")
        if self.epochs is None and self.steps is None:
            object.__setattr__(self, "epochs", EPOCHS)
        self._rates_are_known()
        return self

    def _rates_are_known(self) -> None:
        if self.schedule_over == "all-steps" and self.steps is None:
            raise wrong("schedule_over", "all-steps needs local.steps, the same at every client, in place of epochs")
        if self.schedule_over == "all-steps" and not isinstance(self.schedule, Curve | Constant):
            raise wrong("schedule_over", f"all-steps is not for {self.schedule.name}, which counts rounds itself")
        if self.scale_lr == "none":
            return
        if self.scale_lr_base is None:
            raise wrong("scale_lr_base", f"scale_lr needs the {self.scale_lr_by} that local.lr is meant for")
        if self.scale_lr_by == "batch" and self.batch_size == "full":
            raise wrong("scale_lr_by", "batches of all samples differ from client to client; give a batch_size")

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        copied = super().model_copy(update=update, deep=deep)
        return copied if self._around is None else copied.completed(*self._around)

    def completed(self, rounds: int, cohort: int) -> Self:
        """With what follows from other sections of the experiment: a schedule's end, and the cohort to scale by."""
        most = None if self.steps is None else bounds(self.steps)[1]
        end = {"rounds": rounds, "steps": most, "all-steps": None if most is None else rounds * most}
        schedule = with_horizon(self.schedule, self.warmup, end[self.schedule_over])
        if isinstance(schedule, Bounded) and schedule.horizon is None:
            raise wrong(
                "local.horizon",
                f"{schedule.name} over steps needs horizon, a number of steps: with local.epochs clients' numbers "
                "of steps differ",
            )
        copied = BaseModel.model_copy(self, update={"schedule": schedule})
        copied._around = (rounds, cohort)
        return copied

    @property
    def rates(self) -> RatePlan:
        """The learning rates of all steps."""
        most = None if self.steps is None else bounds(self.steps)[1]
        return RatePlan(self.scaled_lr, self.schedule, self.warmup, self.schedule_over, most)

    @property
    def scaled_lr(self) -> float:
        """`lr`, scaled as `scale_lr` says."""
        if self.scale_lr == "none":
            return self.lr
        if self.scale_lr_by == "cohort" and self._around is None:
            raise InvalidExperiment("local.scale_lr_by: the cohort is known in an experiment alone")
        size = self.batch_size if self._around is None or self.scale_lr_by == "batch" else self._around[1]
        assert isinstance(size, int)
        assert self.scale_lr_base is not None
        ratio = size / self.scale_lr_base
        return self.lr * (ratio if self.scale_lr == "linear" else math.sqrt(ratio))

    @property
    def work(self) -> int | str:
        """Epochs, or steps where they are given."""
        amount = self.epochs if self.steps is None else self.steps
        assert amount is not None
        return amount

    @property
    def augmentation(self) -> Augmentation | None:
        """What becomes of the images of a minibatch; None if nothing does."""
        return Augmentation(self.crop, self.flip) if self.crop or self.flip else None

    def check_samples(self, shape: tuple[int, ...]) -> None:
        """InvalidExperiment if samples of this shape are no images, and are to be augmented."""
        if self.augmentation is None:
            return
        key = "crop" if self.crop else "flip"
        if len(shape) != 3:
            raise InvalidExperiment(
                f"local.{key}: it is for images [C, H, W], and the data have samples of shape {shape}"
            )
        if self.crop >= min(shape[1:]):
            raise InvalidExperiment(
                f"local.crop: with {self.crop} pixels around an image of {shape[1]} x {shape[2]} a window could miss it"
            )

    @property
    def carries_second_moment(self) -> bool:
        """Whether a round begins with the second moment of the rounds before, and a first moment of zero."""
        return self.state in ("average-v", "block-v")

    @property
    def is_plain_descent(self) -> bool:
        """Whether a step is y <- y - lr g(y), with one lr for all parameters, and nothing else."""
        return self.optimizer.is_plain_descent and self.clip is None and not self.groups

    @property
    def has_one_rate(self) -> bool:
        """Whether all parameters have the same learning rate."""
        return not changes_rates(self.groups)

    @property
    def largest_lr(self) -> float:
        """`scaled_lr`, or that of a group whose rate is larger."""
        return self.scaled_lr * max([1.0, *(group.lr_factor for group in self.groups)])

    @property
    def decays_weights(self) -> bool:
        """Whether some weight changes in a step in which its gradient is zero."""
        return self.optimizer.decays_weights or any(group.weight_decay for group in self.groups)

    def notes(self, section: str) -> list[str]:
        """One sentence for each key that was given but that this optimizer does not read, and the optimizer's own."""
        idle = self.state != "reset" and not self.optimizer.moment_names
        without = [f"{section}.state is not used by {self.optimizer.name}: it has no moments here"] if idle else []
        whole = self.stragglers > 0 and bounds(self.work)[1] == 1
        key = "epochs" if self.steps is None else "steps"
        if whole:
            without.append(f"{section}.stragglers has no effect: there is no part of {section}.{key} = 1")
        usual = self.optimizer.usual_lr
        if usual is not None and "lr" not in self.model_fields_set and self.lr > FAR * usual:
            title = self.optimizer.title
            without.append(f"{section}.lr is {self.lr:g}, which suits sgd; {usual:g} is usual with {title}")
        return self._advice() + without + super().notes(section)

    def _advice(self) -> list[str]:
        """The optimizer's, as if all parameters had the largest weight decay of a group."""
        decays = [group.weight_decay for group in self.groups if group.weight_decay]
        optimizer = self.optimizer
        return (optimizer.model_copy(update={"weight_decay": max(decays)}) if decays else optimizer).advice()
