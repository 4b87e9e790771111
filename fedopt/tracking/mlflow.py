"""MLflow: a run of the experiment "fedopt", in a local SQLite file unless MLFLOW_TRACKING_URI names a server."""

from __future__ import annotations

import fcntl
import getpass
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedopt.runs.history import History
from fedopt.tracking.base import Outcome, Tracked, Tracker
from fedopt.tracking.delivery import Point
from fedopt.tracking.flat import parameters
from fedopt.tracking.ledger import Entry

EXPERIMENT = "fedopt"
"""The default of MLFLOW_EXPERIMENT_NAME."""

KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Makes MLflow's pages show an experiment as training, not as an application of language models."""

LONGEST_VALUE = 500
"""Characters of a parameter that any MLflow server takes."""

MOST_METRICS, MOST_PARAMETERS = 1000, 100
"""MLflow's limits for one call of log_batch."""

COUNTED = "local_steps"
"""A number that every record has: which rounds MLflow has is read from it."""

STATUS: dict[Outcome, str] = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class MLflow(Tracker):
    """Logs a run to MLflow: parameters, a metric for each number of each round, and the run's files.

    `tracking_uri` is MLflow's own: by default what MLFLOW_TRACKING_URI or `mlflow.set_tracking_uri` says, else the
    file mlflow.db beside the run's directory. `experiment` is MLFLOW_EXPERIMENT_NAME, else "fedopt".
    """

    name = "mlflow"
    package = "mlflow"
    extra = "mlflow"

    def __init__(self, tracking_uri: str | None = None, experiment: str | None = None) -> None:
        super().__init__()
        self._uri, self._experiment = tracking_uri, experiment

    def open(self, run: Tracked) -> Entry:
        self._folder = run.directory.absolute().parent
        # Nothing goes to machines that the user did not name, and a server that is away is noticed within seconds.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        import mlflow
        from mlflow import MlflowClient

        if "MLFLOW_LOGGING_LEVEL" not in os.environ:
            logging.getLogger("mlflow").setLevel(logging.WARNING)
        is_set = mlflow.is_tracking_uri_set()
        uri = self._uri or (mlflow.get_tracking_uri() if is_set else f"sqlite:///{self._folder}/mlflow.db")
        self._is_local = uri.startswith("sqlite:")
        with self._turn():
            return self._open(run, uri, MlflowClient(tracking_uri=uri))

    def _open(self, run: Tracked, uri: str, client: Any) -> Entry:
        self._client = client
        known = run.known if run.known is not None and run.known.where == uri and self._exists(run.known.id) else None
        given = {key: str(value)[:LONGEST_VALUE] for key, value in parameters(run.experiment).items()}
        if known is None:
            artifacts = (self._folder / "mlartifacts").as_uri() if self._is_local else None
            self._run = self._client.create_run(
                self._experiment_id(artifacts), run_name=run.name, tags=_tags(run)
            ).info.run_id
            before: dict[str, str] = {}
        else:
            self._run = known.id
            self._client.update_run(self._run, status="RUNNING")
            before = self._client.get_run(self._run).data.params
        self._log_parameters(given, before)
        self.see = f"mlflow ui --backend-store-uri {uri}" if self._is_local else f"{uri}, run {self._run}"
        self._sent = 0 if known is None else self._last_round()
        return Entry(id=self._run, where=uri, round=self._sent)

    def send(self, points: Sequence[Point]) -> None:
        batch: list[Point] = []
        for point in points:
            if point.round <= self._sent:
                continue  # it went through before a later one failed
            if batch and sum(len(each.numbers) for each in [*batch, point]) > MOST_METRICS:
                self._log(batch)
                batch = []
            batch.append(point)
        if batch:
            self._log(batch)

    def _log(self, points: Sequence[Point]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(_plain(name), value, now, point.round) for point in points for name, value in point.numbers.items()
        ]
        with self._turn():
            for start in range(0, len(metrics), MOST_METRICS):
                self._client.log_batch(self._run, metrics=metrics[start : start + MOST_METRICS])
        self._sent = points[-1].round

    def attach(self, history: History, files: Sequence[Path]) -> None:
        from mlflow.entities import Metric, RunTag

        summary = history.summary
        name = "best/test_accuracy" if summary.best.regression is None else "best/regression.r2"
        best = Metric(name, summary.best.score, int(time.time() * 1000), summary.best.round)
        about = {"engine": summary.engine, "device": summary.device, **summary.versions}
        with self._turn():
            self._client.log_batch(self._run, [best], tags=[RunTag(key, value) for key, value in about.items()])
            for file in files:
                self._client.log_artifact(self._run, str(file))

    def close(self, outcome: Outcome) -> None:
        with self._turn():
            self._client.set_terminated(self._run, STATUS[outcome])

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Lets one process at a time use the folder's file: a study's workers share it, and SQLite has one writer."""
        if not self._is_local:
            yield
            return
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def _experiment_id(self, artifacts: str | None) -> str:
        from mlflow.exceptions import MlflowException

        name = self._experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name, artifact_location=artifacts, tags=KIND))
            except MlflowException:  # another process has just created it
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _exists(self, run: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            return bool(self._client.get_run(run).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    def _log_parameters(self, given: dict[str, str], before: dict[str, str]) -> None:
        """MLflow's parameters cannot change: those that a resumed run has changed become tags."""
        from mlflow.entities import Param, RunTag

        new = [Param(key, value) for key, value in given.items() if key not in before]
        for start in range(0, len(new), MOST_PARAMETERS):
            self._client.log_batch(self._run, params=new[start : start + MOST_PARAMETERS])
        changed = [key for key, value in given.items() if key in before and before[key] != value]
        self._client.log_batch(self._run, tags=[RunTag(f"resumed.{key}", given[key]) for key in changed])

    def _last_round(self) -> int:
        """The last round that MLflow has. A killed run may have sent one that its own file does not mention."""
        return max((metric.step for metric in self._client.get_metric_history(self._run, COUNTED)), default=0)


def _tags(run: Tracked) -> dict[str, str]:
    experiment = run.experiment
    return {
        "mlflow.user": getpass.getuser(),
        "mlflow.source.name": "fedopt",
        "mlflow.source.type": "LOCAL",
        "algorithm": experiment.algorithm.name,
        "data": experiment.data.source.name,
        "model": experiment.model.name,
        **({} if run.study is None else {"study": run.study}),
    }


def _plain(name: str) -> str:
    """MLflow allows letters, digits, and _ - . space : / in a metric's name."""
    return "".join(sign if sign.isalnum() or sign in "_-. :/" else "_" for sign in name)
