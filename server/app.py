"""The Flower ServerApp: `flwr run .` on a stock SuperLink, or in Flower's Ray simulation.

Run config keys correspond to the options of `fedopt server`: `experiment` is a TOML file on the server's machine,
`set` holds section.key=value overrides separated by spaces, `out` or `resume` name the run's directory, and
every key of an experiment can be given by its own name. A key with the value "" is not set.
"""

from __future__ import annotations

import logging
import shlex
from pathlib import Path

from flwr.app import Context, UserConfig
from flwr.serverapp import Grid, ServerApp

from fedopt.errors import FedoptError
from fedopt.experiment.file import read_experiment
from fedopt.runs.history import RoundRecord
from fedopt.runs.quality import quality
from server.deployment import open_run, run_deployed
from server.links import PolledLink
from server.options import DeploymentOptions

app = ServerApp()

OPTIONS = ("experiment", "set", "out", "resume")
"""Run config keys that are not keys of an experiment."""

log = logging.getLogger("flwr")


class ProgressLog:
    """Writes a run's progress to Flower's log. Implements `fedopt.runs.runner.Observer`."""

    def started(self, directory: Path, rounds_done: int, rounds: int) -> None:
        log.info("rounds %s to %s", rounds_done + 1, rounds)

    def round_done(self, record: RoundRecord) -> None:
        found = quality(record)
        found = f", {found}" if found else ""
        log.info("round %s: training loss %.4f%s, %.2f s", record.round, record.train_loss, found, record.seconds)
        for client, reason in record.left_out.items():
            log.warning("round %s: without client %s: %s", record.round, client, reason)

    def ended(self) -> None:
        pass


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Runs the experiment that the run config describes, over the nodes of `grid`."""
    config = context.run_config
    overrides = overrides_in(config)
    resume = _path(config, "resume")
    experiment = None if resume else read_experiment(_path(config, "experiment"), overrides)
    with open_run(experiment, _path(config, "out"), resume, overrides if resume else []) as (directory, setup):
        try:
            command = "flwr run . --run-config resume=DIR, or fedopt server"
            options = DeploymentOptions(command, log.info, observers=[ProgressLog()])
            history = run_deployed(directory, setup, PolledLink(grid), options)
        except FedoptError as error:
            log.error("%s", error)
            raise
        log.info("%s; results in %s", quality(history.summary.final), history.directory.absolute())


def overrides_in(config: UserConfig) -> list[str]:
    """section.key=value for every key of an experiment that the run config sets."""
    given = [
        f"{key}={str(value).lower() if isinstance(value, bool) else value}"
        for key, value in config.items()
        if key not in OPTIONS and value != ""
    ]
    return given + shlex.split(str(config.get("set", "")))


def _path(config: UserConfig, key: str) -> Path | None:
    value = config.get(key, "")
    return Path(str(value)) if value != "" else None
