"""What a run writes: a record for each round, a summary, the weights."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, cast

from pydantic import AliasChoices, BaseModel, Field
from torch import Tensor, nn

from fedopt.drift.records import ClassSpread, ClientSpread, Drift, GradientDrift, SecondMomentDrift
from fedopt.experiment.experiment import Experiment
from fedopt.imports import load_attribute
from fedopt.runs.model_file import kept_rounds, read_model
from fedopt.runs.regression import Regression
from fedopt.runs.table import Table, Value
from fedopt.storage.record import Line


class RoundRecord(Line):
    """What is known of a round: one line of metrics.jsonl. `fedopt list metrics` explains all measures."""

    round: int
    """The round's number, from 1."""
    cohort: list[int]
    """The clients that were selected."""
    left_out: dict[int, str] = Field(default_factory=dict)
    """Clients of the cohort whose updates were not aggregated, each with the reason."""
    samples: int
    """Training samples of the round's clients."""
    local_steps: int
    """Local steps of the round's clients, added up."""
    train_loss: float
    """Mean loss over these steps, weighted like the objective; without the penalties local.l1 and local.l2."""
    test_loss: float | None
    """Mean loss on the test set; null in rounds without evaluation."""
    test_accuracy: float | None
    """Accuracy on the test set; null in rounds without evaluation, and where targets are numbers. Of several labels a
    sample, the share of right ones."""
    regression: Regression | None = None
    """Errors where targets are numbers; whenever the test set is evaluated."""
    personal_accuracy: float | None = None
    """Accuracy on the test set if each client's share is classified by the client's own model; null unless the
    algorithm gives clients such models, and in rounds without `clients`."""
    lr: float | None = None
    """The learning rate of the clients' first step, where it changes; null under a constant one."""
    server_lr: float | None = None
    """The server's rate, where it changes; null under a constant one."""
    update_norm: float
    """|x+ - x|, the norm of the global model's step."""
    bytes_down: int
    """Bytes sent to the clients."""
    bytes_up: int
    """Bytes sent by the clients."""
    seconds: float
    """Wall time, evaluation included."""
    drift: Drift | None = None
    """Measures of the clients' updates; every round, unless metrics.drift is "off"."""
    gradients: GradientDrift | None = None
    """Measures of the clients' full gradients at x; every metrics.drift_every rounds."""
    moments: SecondMomentDrift | None = None
    """Measures of the clients' second moments where these travel, under local.state = average, average-v or block-v;
    with `drift`."""
    algorithm: dict[str, float | None] | None = Field(None, validation_alias=AliasChoices("algorithm", "control"))
    """The algorithm's own measures, if it has some; every round, some of them when full gradients are computed."""
    clients: ClientSpread | None = None
    """The model that each client uses, on its own test share; every metrics.clients_every rounds."""
    classes: ClassSpread | None = None
    """The model class by class; whenever the test set is evaluated."""
    divergence: float | None = None
    """|x - x_central| / |x_central|, x_central a centralized run on as many samples; with metrics.divergence."""


OBJECTS = ("regression", "drift", "gradients", "moments", "algorithm", "clients", "classes")
"""Fields of a record that are null or hold further measures."""


class Final(Line):
    test_accuracy: float | None = None
    """Accuracy of the final model on the test set; null where targets are numbers."""
    regression: Regression | None = None
    """Errors of the final model on the test set, where targets are numbers."""
    test_loss: float
    """Mean loss of the final model on the test set."""
    personal_accuracy: float | None = None
    """Accuracy on the test set if each client's share is classified by the client's own model; null unless the
    algorithm gives clients such models."""

    @property
    def score(self) -> float:
        """What runs are compared by: accuracy, or R^2 where targets are numbers."""
        return score_of(self.test_accuracy, self.regression)

    @property
    def of_clients(self) -> float:
        """The score of the models that the clients use themselves: their own, or the global one."""
        return self.score if self.personal_accuracy is None else self.personal_accuracy


class Best(Line):
    round: int
    """The first round of the best test accuracy, or R^2."""
    test_accuracy: float | None = None
    """The best accuracy on the test set in any evaluated round; null where targets are numbers."""
    regression: Regression | None = None
    """The errors in the round with the best R^2, where targets are numbers."""

    @property
    def score(self) -> float:
        return score_of(self.test_accuracy, self.regression)


def score_of(accuracy: float | None, regression: Regression | None) -> float:
    """Accuracy, or R^2 where targets are numbers."""
    if regression is not None:
        return regression.r2
    assert accuracy is not None
    return accuracy


class Summary(Line):
    """summary.json."""

    final: Final
    """The final model."""
    best: Best
    """The best round."""
    rounds: int
    """The number of rounds of the run."""
    rounds_to_target: int | None
    """The first round that reached run.target_accuracy; null if none did, or without a target."""
    seconds: float
    """Wall time of the whole run, without the time between a stop and --resume."""
    seed: int
    """The run's seed."""
    device: str
    """The device of the server's vectors, for example cpu."""
    engine: str
    """What ran the clients, for example embedded."""
    versions: dict[str, str]
    """Versions of python, fedopt, torch and numpy."""
    weights_sha256: str
    """sha256 over the final weights: equal for two runs that ended with the same bits."""


@dataclass(frozen=True)
class History:
    """A run: what `fedopt.run` returns, and `fedopt.load` for a run that was made before. A notebook shows a table.

    >>> history = fedopt.run(fedopt.Experiment())                              # doctest: +SKIP
    >>> history.summary.final.test_accuracy, history.records[0].train_loss     # doctest: +SKIP
    >>> history.model()(x).argmax(1), history.to_pandas(), history.plot()      # doctest: +SKIP
    """

    experiment: Experiment
    """What was run."""
    directory: Path
    """Where the run's files are."""
    records: tuple[RoundRecord, ...]
    """One record for each round: the lines of metrics.jsonl."""
    summary: Summary
    """summary.json."""
    finished: bool = True
    """Whether the run has ended; False only from `fedopt.load`."""

    @property
    def weights(self) -> dict[str, Tensor]:
        """The final model's state_dict, for `module.load_state_dict`."""
        return read_model(self.directory)[0]

    @property
    def kept_rounds(self) -> list[int]:
        """The rounds whose models `run.keep_models` has kept, for `model`."""
        return kept_rounds(self.directory)

    def model(self, client: int | str | None = None, *, round: int | None = None) -> nn.Module:
        """The plain torch module with the final weights, or with those after a round that `kept_rounds` has, on the
        CPU, in eval mode.

        `client` is the number, or the name, of a client whose own model is wanted, under an algorithm that gives
        clients models of their own, such as ditto; the clients of a deployed federation keep theirs.

        It takes samples as `prepare` makes them, [B, *sample_shape], and returns logits [B, classes]. A
        model of your own is built by your own code, which is looked for where the run found it.
        """
        place = "fedopt.runs.final_model:final_model"
        return cast(Callable[[History, int | str | None, int | None], nn.Module], load_attribute(place))(
            self, client, round
        )

    def prepare(self, samples: Any) -> Tensor:
        """Raw samples as `model()` takes them, [n, *sample_shape] in the run's dtype: shifted and scaled as the
        training data were.

        `samples` are rows of a table in the order of its features, or images [n, C, H, W], as a DataFrame, an array, a
        tensor or a list. InvalidExperiment for another shape.

        >>> history.model()(history.prepare(rows)).argmax(1)    # doctest: +SKIP
        """
        prepared = cast(Callable[[History, Any], Tensor], load_attribute("fedopt.runs.scaling:prepared"))
        return prepared(self, samples)

    def to_pandas(self) -> Any:
        """A pandas DataFrame with a row for each round.

        Its columns are the numbers in metrics.jsonl by their dotted names, for example `test_accuracy`, `drift.ratio`
        and `drift.layers.1.ratio`; see `fedopt list metrics`. Lists and texts are in `records` alone.
        InvalidExperiment if pandas is not installed.
        """
        rows = [numbers_by_name(record) for record in self.records]
        known = {name for row in rows for name, value in row.items() if value is not None}
        return Table([{name: row[name] for name in row if name in known} for row in rows]).to_pandas()

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """A matplotlib Figure of accuracy, loss and drift over the rounds; `path` is a .pdf, .svg or .png to write.

        `fedopt.compare` draws several runs.
        """
        draw = cast(Callable[[History, Path | None], Any], load_attribute("simulations.report.one_run:plot"))
        return draw(self, None if path is None else Path(path))

    def to_onnx(self, path: str | os.PathLike[str]) -> Path:
        """Writes the final model as an ONNX file and returns its path; needs the extra onnx.

        The input is named x, [batch, *sample_shape], the output logits, [batch, classes]; `batch` is any number.
        Samples are as the run's data source prepares them, as for `model`.
        """
        write = cast(Callable[[History, Path], Path], load_attribute("fedopt.runs.onnx_export:to_onnx"))
        return write(self, Path(path))

    def __repr__(self) -> str:
        return cast(Callable[[History], str], load_attribute("fedopt.runs.display:history_text"))(self)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return cast(Callable[[History], str], load_attribute("fedopt.runs.display:history_html"))(self)


def summarize(
    experiment: Experiment,
    records: list[RoundRecord],
    final: Final,
    *,
    seconds: float,
    device: str,
    engine: str,
    weights_sha256: str,
) -> Summary:
    """The summary of a run that ended with `final`."""
    found = {
        record.round: Best(round=record.round, test_accuracy=record.test_accuracy, regression=record.regression)
        for record in records
        if record.test_accuracy is not None or record.regression is not None
    }
    last = records[-1].round
    found[last] = Best(round=last, test_accuracy=final.test_accuracy, regression=final.regression)
    best = max(found.values(), key=lambda one: (one.score, -one.round))
    target = experiment.run.target_accuracy
    reached = [round_ for round_, one in found.items() if target is not None and one.score >= target]
    return Summary(
        final=final,
        best=best,
        rounds=records[-1].round,
        rounds_to_target=reached[0] if reached else None,
        seconds=seconds,
        seed=experiment.run.seed,
        device=device,
        engine=engine,
        versions=_versions(),
        weights_sha256=weights_sha256,
    )


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: _version(name) for name in ("fedopt", "torch", "numpy")}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"  # run from its source tree


def numbers_by_name(record: BaseModel, prefix: str = "") -> dict[str, Value]:
    """Every number of a record by its dotted name; None for one that it does not have."""
    found: dict[str, Value] = {}
    for name in type(record).model_fields:
        value = getattr(record, name)
        if isinstance(value, BaseModel):
            found |= numbers_by_name(value, f"{prefix}{name}.")
        elif isinstance(value, dict):
            for key, inner in value.items():
                if isinstance(inner, BaseModel):
                    found |= numbers_by_name(inner, f"{prefix}{name}.{key}.")
                elif inner is None or isinstance(inner, int | float):
                    found[f"{prefix}{name}.{key}"] = inner
        elif isinstance(value, int | float) or (value is None and name not in OBJECTS):
            found[prefix + name] = value
    return found
