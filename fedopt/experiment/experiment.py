"""An experiment: one validated description of a run, the same on every engine."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeGuard, cast

from pydantic import (
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    SerializeAsAny,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from fedopt.algorithms import ALGORITHMS
from fedopt.algorithms.base import Algorithm, Participation
from fedopt.algorithms.fedavg import FedAvg
from fedopt.channel.settings import ChannelSettings
from fedopt.composite import Composite, flat_keys
from fedopt.data.settings import DataSettings
from fedopt.drift.settings import MetricSettings
from fedopt.errors import InvalidExperiment
from fedopt.experiment.changes import merged
from fedopt.explain import explain
from fedopt.family import Family, as_member, resolve
from fedopt.imports import load_attribute
from fedopt.models import MODELS
from fedopt.models.base import ModelFamily
from fedopt.models.dense import Mlp
from fedopt.optimizers.local import LocalSettings
from fedopt.optimizers.moments import Moments
from fedopt.precision import Products
from fedopt.round.batchnorm import BatchNorms, objection
from fedopt.round.gathering import GATHERINGS
from fedopt.round.gathering.base import Gathering
from fedopt.round.gathering.mean import Mean
from fedopt.round.method import Method
from fedopt.round.plausibility import AdmissionSettings
from fedopt.schedules.server import ServerSettings
from fedopt.section import Section, wrong

OF_VIRTUAL_CLIENTS = ("lanes", "workers", "cuda_graphs")
"""Keys of [run] that deployed clients do not read: each is one lane in its own process."""

PARTICIPATION = 0.2
"""The share of clients per round if neither participation nor cohort is given."""


class RunSettings(Section):
    """The experiment's [run] section."""

    renamed: ClassVar[Mapping[str, str]] = {"gradients": "backend"}

    rounds: int = Field(100, ge=1)
    """The number of rounds."""
    participation: float | None = Field(None, gt=0, le=1)
    """The share of all clients that a round selects; 0.2 if neither participation nor cohort is given."""
    cohort: int | None = Field(None, ge=1)
    """The number of clients that a round selects, in place of participation."""
    seed: int = Field(0, ge=0)
    """What every random stream is derived from: the same seed gives the same bits."""
    eval_every: int = Field(1, ge=1)
    """Rounds between evaluations on the test set; the last round is always evaluated."""
    target_accuracy: float | None = Field(None, gt=0, le=1)
    """A test accuracy; the summary says in which round it was reached."""
    stop_at_target: bool = False
    """Whether the run ends in that round."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where clients train; auto takes a GPU if there is one."""
    dtype: Literal["float32", "float64"] = "float32"
    """The type of parameters, gradients and samples."""
    products: Products = "full"
    """The precision of matrix products in training: float32, or operands rounded to tf32 (relative error at most 2^-11)
    or bf16 (2^-8). A GPU multiplies these faster; a CPU imitates them. Sums, parameters and evaluation are float32."""
    threads: int = Field(1, ge=1)
    """Threads of a torch operation. With one thread, the same kind of machine gives the same bits."""
    lanes: int | Literal["auto"] = "auto"
    """Clients that train side by side in each worker. It does not change results."""
    workers: int | Literal["auto"] = "auto"
    """Processes that train virtual clients; auto is one per core. It does not change results."""
    backend: Literal["auto", "stacked", "each", "vmap"] = "auto"
    """How gradients are computed: stacked, for all lanes at once by a rule for each layer; each, for one lane after the
    other by autograd; or vmap, by torch.func.vmap. auto takes stacked if every layer of the model has a rule."""
    cuda_graphs: bool = False
    """Whether steps are recorded as CUDA graphs, once for each number of lanes, and replayed."""
    checkpoint_every: int | Literal["auto"] = "auto"
    """Rounds between checkpoints; auto keeps their cost below 5% of the run."""
    keep_models: int = Field(0, ge=0)
    """Rounds between global models that the run's directory keeps, each in a file of its own of the size of
    model.safetensors, for `fedopt analyze`; the last round's is kept as well. 0 keeps none."""

    min_replies: int | None = Field(None, ge=1)
    """The fewest updates with which a round counts. By default the whole cohort in a simulation, where a missing update
    is an error in the experiment, and half of it in a deployed federation, where clients may disconnect."""
    over_select: float = Field(0.0, ge=0)
    """Additional deployed clients that get an order, as a share of the cohort; the first `cohort` answers are used."""
    deadline: float = Field(600.0, gt=0)
    """Seconds that a deployed client has for a round; a later update is left out."""
    patience: float = Field(600.0, gt=0)
    """Seconds that a server waits for the clients that it needs; then it names those that are missing, and ends."""

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
    """Data, model, algorithm, local work and run. Missing keys use the digits default.

    Each section is given by its keys, as in TOML, or as an object. An experiment is never changed: `replace` makes a
    changed copy. InvalidExperiment, with one sentence for each mistake, if something is wrong.

    >>> experiment = Experiment(algorithm={"name": "scaffold"}, run={"rounds": 10})
    >>> experiment.algorithm.name, experiment.run.rounds, experiment.data.source.name
    ('scaffold', 10, 'digits')
    >>> Experiment(run={"rounds": -1})
    Traceback (most recent call last):
    ...
    fedopt.errors.InvalidExperiment: run.rounds: must be greater than or equal to 1, not -1
    """

    data: DataSettings = DataSettings()
    model: Annotated[SerializeAsAny[ModelFamily], BeforeValidator(as_member(MODELS, "mlp"))] = Mlp(hidden=(64,))
    algorithm: Annotated[SerializeAsAny[Algorithm], BeforeValidator(as_member(ALGORITHMS, "fedavg"))] = FedAvg()
    local: LocalSettings = LocalSettings()
    server: ServerSettings = ServerSettings()
    run: RunSettings = RunSettings()
    metrics: MetricSettings = MetricSettings()
    admission: AdmissionSettings = AdmissionSettings()
    channel: ChannelSettings = ChannelSettings()
    gathering: Annotated[SerializeAsAny[Gathering], BeforeValidator(as_member(GATHERINGS, "mean"))] = Mean()

    def __init__(self, **sections: Any) -> None:
        try:
            super().__init__(**sections)
        except ValidationError as error:
            raise InvalidExperiment(explain(error, meant_key)) from error

    def __repr__(self) -> str:
        """The keys that were given."""
        sections = {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}
        given = {name: section.given() for name, section in sections.items()}
        for name, section in sections.items():
            if isinstance(section, Family):
                given[name] = {"name": section.name, **given[name]}
        return f"{type(self).__name__}({', '.join(f'{name}={keys!r}' for name, keys in given.items())})"

    __str__ = __repr__

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str], *overrides: str) -> Self:
        """The experiment in a TOML file, with `section.key=value` overrides as of `fedopt run --set`.

        >>> Experiment.from_toml("mnist.toml", "run.rounds=20", "algorithm.name=scaffold")   # doctest: +SKIP
        """
        read = cast(Callable[[Path, Sequence[str]], Self], load_attribute("fedopt.experiment.file:read_experiment"))
        return read(Path(path), overrides)

    def to_toml(self, path: str | os.PathLike[str] | None = None) -> str:
        """The whole experiment as TOML, defaults included; `path` is a file to write it to.

        >>> print(Experiment().to_toml())   # doctest: +ELLIPSIS
        [data]
        name = "digits"
        ...
        """
        text = cast(Callable[[Experiment], str], load_attribute("fedopt.experiment.file:to_toml"))(self)
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def replace(self, **sections: Any) -> Self:
        """A changed copy, checked like a new experiment.

        A mapping changes keys of a section and leaves its others, a string names another algorithm, model or gathering
        rule, and an object takes the section's place. Keys that only a replaced member reads are dropped.

        >>> experiment = Experiment(run={"rounds": 10, "seed": 1})
        >>> changed = experiment.replace(algorithm="scaffold", run={"rounds": 5})
        >>> changed.algorithm.name, changed.run.rounds, changed.run.seed
        ('scaffold', 5, 1)
        """
        given = self.given()
        changes = {name: merged(name, getattr(self, name, None), change) for name, change in sections.items()}
        local = changes.get("local", given.get("local"))
        if "algorithm" in changes and isinstance(local, LocalSettings):  # defaults may be others under the new one
            changes["local"] = {**local.unread_values, **local.given()}
        return type(self)(**{**given, **changes})

    @model_validator(mode="wrap")
    @classmethod
    def _defaults_of_the_algorithm(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Gives keys of [local] the defaults that they have under this algorithm, as if nothing had been given."""
        if not isinstance(given, Mapping) or not isinstance(given.get("local", {}), Mapping):
            return handler(given)
        local = given.get("local", {})
        either = {"epochs", "steps"}
        taken = local.keys() | (either if either & local.keys() else set())
        defaults = _fitting(_local_defaults(given.get("algorithm")), local)
        missing = {key: value for key, value in defaults.items() if key not in taken}
        experiment = handler({**given, "local": {**local, **missing}} if missing else given)
        experiment.local.forget_given(missing)
        if not local:
            experiment.model_fields_set.discard("local")
        return experiment

    @model_validator(mode="after")
    def _rates_are_complete(self) -> Self:
        object.__setattr__(self, "local", self.local.completed(self.run.rounds, self.cohort_size))
        object.__setattr__(self, "server", self.server.completed(self.run.rounds))
        for section, schedule in (("local", self.local.schedule), ("server", self.server.schedule)):
            if schedule.follows_loss and self.run.eval_every >= self.run.rounds:
                raise wrong(
                    f"{section}.schedule",
                    f"{schedule.name} follows the test loss, which run.eval_every = {self.run.eval_every} measures "
                    f"only after the last of {self.run.rounds} rounds; lower run.eval_every",
                )
        return self

    @model_validator(mode="after")
    def _suits_the_algorithm(self) -> Self:
        if self.algorithm.needs_one_rate and not self.local.has_one_rate:
            told = f"{self.algorithm.name} computes with one learning rate of all parameters"
            raise wrong("local.groups", f"{told}; leave lr_factor out of the groups, or choose another algorithm")
        why_not = self.algorithm.objection(self.local, Participation(self.data.clients, self.cohort_size))
        if why_not is not None:
            raise wrong("algorithm.name", why_not)
        return self

    @model_validator(mode="after")
    def _suits_batch_norm(self) -> Self:
        policy, stages = self.model.batchnorm, bool(self.channel.channel)
        told = objection(policy, self.algorithm, self.local, stages=stages)
        if told is None and policy == "local" and self.metrics.divergence:
            told = "clients have models of their own, of which metrics.divergence knows nothing; leave it out"
        if told is not None:
            raise wrong("model.batchnorm", told)
        return self

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
        moments, norms = Moments.of(self.local), BatchNorms(self.model.batchnorm)
        return Method(self.algorithm, self.channel.channel, self.gathering, moments, self.server, norms)

    @property
    def is_personal(self) -> bool:
        """Whether clients use models of their own."""
        return self.method.is_personal

    @property
    def cohort_size(self) -> int:
        """The number of clients per round."""
        if self.run.cohort is not None:
            return self.run.cohort
        assert self.run.participation is not None
        return max(1, round(self.run.participation * self.data.clients))

    @property
    def asked_size(self) -> int:
        """The number of clients that get an order in a deployed round."""
        return min(self.data.clients, math.ceil(self.cohort_size * (1 + self.run.over_select)))

    @property
    def unread(self) -> set[str]:
        """Keys that were given but that no chosen member reads, as section.key."""
        composites = {section: keys.unread for section, keys in self if isinstance(keys, Composite)}
        return {f"{section}.{key}" for section, unread in composites.items() for key in unread}

    def notes(self, deployed: bool = False) -> list[str]:
        """Sentences for the user, for example about keys that nothing reads, with `deployed` or virtual clients."""
        idle = [
            f"run.{key} is for virtual clients; deployed ones do not read it"
            for key in OF_VIRTUAL_CLIENTS
            if deployed and getattr(self.run, key) != RunSettings.model_fields[key].default
        ]
        if self.algorithm.draws_steps:
            given = sorted({"epochs", "steps"} & self.local.given().keys())
            idle += [f"local.{key} is not used by {self.algorithm.name}: it draws the number of steps" for key in given]
        unread = [note for section, keys in self if isinstance(keys, Composite) for note in keys.notes(section)]
        return unread + idle


OTHER_NAMES = {
    "learning_rate": "local.lr",
    "num_clients": "data.clients",
    "num_rounds": "run.rounds",
    "local_epochs": "local.epochs",
    "batch": "local.batch_size",
    "fraction_fit": "run.participation",
    "fraction_train": "run.participation",
}
"""What other libraries call some keys."""


def meant_key(section: str, key: str) -> str | None:
    """The key of another section that an unknown key of this one names, or the one that other libraries call so."""
    kinds = {name: field.annotation for name, field in Experiment.model_fields.items()}
    owners = [name for name, kind in kinds.items() if isinstance(kind, type) and key in _all_keys(kind)]
    if not owners:
        return OTHER_NAMES.get(key)
    owner = section if section in owners else owners[0]
    kind = kinds[owner]
    of = [name for name in kind.registry if key in flat_keys(kind.registry.resolve(name))] if _is_family(kind) else []
    return f"{owner}.{key}" + (f" of {', '.join(of)}" if of else "")


def _is_family(kind: object) -> TypeGuard[type[Family]]:
    return isinstance(kind, type) and issubclass(kind, Family)


def _all_keys(kind: type[Section]) -> set[str]:
    """The keys that a section may have, by any name of its member."""
    members = [kind, *kind.registry.kinds()] if _is_family(kind) else [kind]
    return {key for member in members for key in flat_keys(member)}


def _local_defaults(given: Any) -> Mapping[str, Any]:
    """Those of the algorithm that is given by its keys, its name or as an object."""
    if isinstance(given, Mapping):
        given = given.get("name", "fedavg")
    if not isinstance(given, str | Algorithm):
        return {}
    with suppress(PydanticCustomError):  # a wrong name is reported with all other mistakes
        return cast(type[Algorithm], resolve(ALGORITHMS, given, "name")).local_defaults
    return {}


def _fitting(defaults: Mapping[str, Any], local: Mapping[str, Any]) -> Mapping[str, Any]:
    """Those of the keys of [local] that hold for the optimizer given there: keys of an optimizer are meant for the
    algorithm's own, and one that is given as an object has all of its keys."""
    chosen = local.get("optimizer", defaults.get("optimizer"))
    if "optimizer" not in defaults or chosen == defaults["optimizer"]:
        return defaults
    kept = {key: value for key, value in defaults.items() if key in LocalSettings.model_fields}
    with suppress(ValidationError, PydanticCustomError):  # a wrong optimizer is reported with all other mistakes
        if not LocalSettings(optimizer=chosen).optimizer.second_moment_names:
            kept.pop("state", None)  # so that the algorithm says what it thinks of this optimizer
    return kept
