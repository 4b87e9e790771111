"""MLflow: a run of the experiment "fedopt", in a local SQLite file unless MLFLOW_TRACKING_URI names a server."""

from __future__ import annotations

import getpass
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedopt.experiment.experiment import Experiment
from fedopt.runs.history import History
from fedopt.tracking.base import Outcome, Tracked, Tracker
from fedopt.tracking.delivery import Point
from fedopt.tracking.flat import parameters
from fedopt.tracking.ledger import Entry

EXPERIMENT = "fedopt"
"""The default of MLFLOW_EXPERIMENT_NAME."""

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
        # Nothing goes to machines that the user did not name, and a server that is away is noticed within seconds.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        import mlflow
        from mlflow import MlflowClient

        if "MLFLOW_LOGGING_LEVEL" not in os.environ:
            logging.getLogger("mlflow").setLevel(logging.WARNING)
        beside = run.directory.absolute().parent
        is_set = mlflow.is_tracking_uri_set()
        uri = self._uri or (mlflow.get_tracking_uri() if is_set else f"sqlite:///{beside}/mlflow.db")
        self._client: Any = MlflowClient(tracking_uri=uri)
        known = run.known if run.known is not None and run.known.where == uri and self._exists(run.known.id) else None
        given = {key: str(value)[:LONGEST_VALUE] for key, value in parameters(run.experiment).items()}
        if known is None:
            artifacts = (beside / "mlartifacts").as_uri() if uri.startswith("sqlite:") else None
            self._run = self._client.create_run(
                self._experiment_id(artifacts), run_name=run.name, tags=_tags(run.experiment)
            ).info.run_id
            before: dict[str, str] = {}
        else:
            self._run = known.id
            self._client.update_run(self._run, status="RUNNING")
            before = self._client.get_run(self._run).data.params
        self._log_parameters(given, before)
        local = uri.startswith("sqlite:")
        self.see = f"mlflow ui --backend-store-uri {uri}" if local else f"{uri}, run {self._run}"
        return Entry(id=self._run, where=uri, round=0 if known is None else self._last_round())

    def send(self, points: Sequence[Point]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        batch: list[Any] = []
        for point in points:
            metrics = [Metric(_plain(name), value, now, point.round) for name, value in point.numbers.items()]
            if batch and len(batch) + len(metrics) > MOST_METRICS:
                self._client.log_batch(self._run, metrics=batch)
                batch = []
            batch += metrics
        self._client.log_batch(self._run, metrics=batch)

    def attach(self, history: History, files: Sequence[Path]) -> None:
        summary = history.summary
        self._client.log_metric(self._run, "best/test_accuracy", summary.best.test_accuracy, step=summary.best.round)
        for key, value in {"engine": summary.engine, "device": summary.device, **summary.versions}.items():
            self._client.set_tag(self._run, key, value)
        for file in files:
            self._client.log_artifact(self._run, str(file))

    def close(self, outcome: Outcome) -> None:
        self._client.set_terminated(self._run, STATUS[outcome])

    def _experiment_id(self, artifacts: str | None) -> str:
        from mlflow.exceptions import MlflowException

        name = self._experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name, artifact_location=artifacts))
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


def _tags(experiment: Experiment) -> dict[str, str]:
    return {
        "mlflow.user": getpass.getuser(),
        "mlflow.source.name": "fedopt",
        "mlflow.source.type": "LOCAL",
        "algorithm": experiment.algorithm.name,
        "data": experiment.data.source.name,
        "model": experiment.model.name,
    }


def _plain(name: str) -> str:
    """MLflow allows letters, digits, and _ - . space : / in a metric's name."""
    return "".join(sign if sign.isalnum() or sign in "_-. :/" else "_" for sign in name)
