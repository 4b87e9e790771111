"""An experiment: one validated description of a run, the same on every engine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError, model_validator

from fedopt.algorithms import ALGORITHMS
from fedopt.algorithms.base import Algorithm
from fedopt.algorithms.fedavg import FedAvg
from fedopt.channel.settings import ChannelSettings
from fedopt.data.settings import DataSettings
from fedopt.drift.settings import MetricSettings
from fedopt.errors import InvalidExperiment
from fedopt.explain import explain
from fedopt.family import Composite, as_member
from fedopt.models import MODELS
from fedopt.models.base import ModelFamily
from fedopt.models.dense import Mlp
from fedopt.optimizers.local import LocalSettings
from fedopt.precision import Products
from fedopt.round.gathering import GATHERINGS
from fedopt.round.gathering.base import Gathering
from fedopt.round.gathering.mean import Mean
from fedopt.round.method import Method
from fedopt.round.plausibility import AdmissionSettings
from fedopt.section import Section, wrong

OF_VIRTUAL_CLIENTS = ("lanes", "workers", "cuda_graphs")
"""Keys of [run] that a deployed client, which is one lane in a process of its own, has no use for."""

PARTICIPATION = 0.2
"""The share of clients a round where neither participation nor cohort is given."""


class RunSettings(Section):
    """The experiment's [run] section."""

    renamed: ClassVar[Mapping[str, str]] = {"gradients": "backend"}

    rounds: int = Field(100, ge=1)
    participation: float | None = Field(None, gt=0, le=1)
    cohort: int | None = Field(None, ge=1)
    """How many clients a round: a share of all (a fifth by default), or a number."""
    seed: int = Field(0, ge=0)
    eval_every: int = Field(1, ge=1)
    target_accuracy: float | None = Field(None, gt=0, le=1)
    stop_at_target: bool = False
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    dtype: Literal["float32", "float64"] = "float32"
    products: Products = "full"
    """How exactly training multiplies: in float32, or from operands rounded to tf32 (relative error at most 2^-11) or
    bf16 (2^-8), which a GPU multiplies faster and a CPU imitates. Sums, parameters and evaluation are float32."""
    threads: int = Field(1, ge=1)
    """torch threads inside an operation. One thread gives the same bits on every machine of a kind."""
    lanes: int | Literal["auto"] = "auto"
    """How many clients train side by side in each worker. Never changes what they learn."""
    workers: int | Literal["auto"] = "auto"
    """Processes that train virtual clients; auto is one for every core. Never changes what they learn."""
    backend: Literal["auto", "stacked", "each", "vmap"] = "auto"
    """How lanes get their gradients: all at once by rules written for each layer, one after the other by autograd, or
    all at once by torch.func.vmap. auto takes the rules where every layer of the model has one."""
    cuda_graphs: bool = False
    """On a CUDA device, whether virtual clients' steps are recorded once for each number of lanes and replayed."""
    checkpoint_every: int | Literal["auto"] = "auto"
    """Rounds between checkpoints; auto keeps their cost below a twentieth of the run."""

    min_replies: int | None = Field(None, ge=1)
    """Updates without which a round does not count. By default all of the cohort in a simulation, where a missing
    one is a mistake in the experiment, and half of it in a deployed federation, where machines come and go."""
    over_select: float = Field(0.0, ge=0)
    """Deployed clients asked beyond the cohort, as a share of it; the first `cohort` to answer make the round."""
    deadline: float = Field(600.0, gt=0)
    """Seconds a deployed client has for its part of a round; who is later is left out."""
    patience: float = Field(600.0, gt=0)
    """Seconds a server waits for clients that it cannot do without; then it says which are missing, and ends."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.participation is not None and self.cohort is not None:
            raise wrong("cohort", "give participation or cohort, not both")
        if self.participation is None and self.cohort is None:
            object.__setattr__(self, "participation", PARTICIPATION)
        if self.stop_at_target and self.target_accuracy is None:
            raise wrong("stop_at_target", "needs target_accuracy, for example 0.9")
        for key in ("lanes", "workers", "checkpoint_every"):
            value = getattr(self, key)
            if isinstance(value, int) and value < 1:
                raise wrong(key, f'must be at least 1, or "auto", not {value}')
        if self.products != "full" and self.dtype != "float32":
            raise wrong("products", f"{self.products} rounds float32, not {self.dtype}; leave out run.dtype, or this")
        if self.device == "mps" and self.dtype == "float64":
            raise wrong("dtype", "mps has no float64; choose float32, or device cpu")
        return self


class Experiment(Section):
    """Data, model, algorithm, local work and run. Silent keys take the digits default.

    >>> Experiment(algorithm={"name": "scaffold"}, run={"rounds": 10}).algorithm.name
    'scaffold'
    """

    data: DataSettings = DataSettings()
    model: Annotated[SerializeAsAny[ModelFamily], BeforeValidator(as_member(MODELS, "mlp"))] = Mlp(hidden=(64,))
    algorithm: Annotated[SerializeAsAny[Algorithm], BeforeValidator(as_member(ALGORITHMS, "fedavg"))] = FedAvg()
    local: LocalSettings = LocalSettings()
    run: RunSettings = RunSettings()
    metrics: MetricSettings = MetricSettings()
    admission: AdmissionSettings = AdmissionSettings()
    channel: ChannelSettings = ChannelSettings()
    gathering: Annotated[SerializeAsAny[Gathering], BeforeValidator(as_member(GATHERINGS, "mean"))] = Mean()

    def __init__(self, **sections: Any) -> None:
        try:
            super().__init__(**sections)
        except ValidationError as error:
            raise InvalidExperiment(explain(error)) from error

    @model_validator(mode="after")
    def _cohort_fits(self) -> Self:
        if self.run.cohort is not None and self.run.cohort > self.data.clients:
            raise wrong("run.cohort", f"{self.run.cohort} a round, but data.clients is {self.data.clients}; lower it")
        least = self.run.min_replies
        if least is not None and least > self.cohort_size:
            raise wrong("run.min_replies", f"{least} updates, but a round has {self.cohort_size} clients; lower it")
        return self

    @property
    def method(self) -> Method:
        """What happens to vectors in a round."""
        return Method(self.algorithm, self.channel.channel, self.gathering)

    @property
    def cohort_size(self) -> int:
        """How many clients are chosen each round."""
        if self.run.cohort is not None:
            return self.run.cohort
        assert self.run.participation is not None
        return max(1, round(self.run.participation * self.data.clients))

    @property
    def asked_size(self) -> int:
        """How many clients a deployed federation asks each round."""
        return min(self.data.clients, math.ceil(self.cohort_size * (1 + self.run.over_select)))

    @property
    def unread(self) -> set[str]:
        """Keys, as section.key, that were given and that nothing reads because of the names that others have."""
        composites = {section: keys.unread for section, keys in self if isinstance(keys, Composite)}
        return {f"{section}.{key}" for section, unread in composites.items() for key in unread}

    def notes(self, deployed: bool = False) -> list[str]:
        """What the user may want to know: keys that were set and that nothing reads, among machines if `deployed`."""
        idle = [
            f"run.{key} is for virtual clients; deployed ones do not read it"
            for key in OF_VIRTUAL_CLIENTS
            if deployed and getattr(self.run, key) != RunSettings.model_fields[key].default
        ]
        unread = [note for section, keys in self if isinstance(keys, Composite) for note in keys.notes(section)]
        return unread + idle
