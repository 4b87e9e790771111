"""Weights & Biases: offline files in the run's directory, unless WANDB_MODE says otherwise."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedopt.experiment.file import as_sections
from fedopt.runs.history import History
from fedopt.tracking.base import Outcome, Tracked, Tracker
from fedopt.tracking.delivery import Point
from fedopt.tracking.ledger import Entry

PROJECT = "fedopt"
"""The default of WANDB_PROJECT."""


class WandB(Tracker):
    """Logs a run to Weights & Biases: the experiment as its config, the numbers of each round, and the run's files.

    `project` is WANDB_PROJECT, else "fedopt"; `mode` is WANDB_MODE, else "offline", and then
    `wandb sync DIR/wandb/offline-run-*` sends the run later. W&B's own variables configure everything else.
    """

    name = "wandb"
    package = "wandb"
    extra = "wandb"

    def __init__(self, project: str | None = None, mode: str | None = None) -> None:
        super().__init__()
        self._project = project or os.environ.get("WANDB_PROJECT", PROJECT)
        self._mode: Any = mode or os.environ.get("WANDB_MODE", "offline")

    def open(self, run: Tracked) -> Entry:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # nothing goes to machines the user did not name
        import wandb

        known = run.known if run.known is not None and run.known.where == self._project else None
        identity = secrets.token_hex(4) if known is None else known.id
        self._run: Any = wandb.init(
            project=self._project,
            dir=str(run.directory),
            id=identity,
            name=os.environ.get("WANDB_NAME", run.name),
            group=os.environ.get("WANDB_RUN_GROUP", run.study),
            resume="allow",
            mode=self._mode,
            config=as_sections(run.experiment),
            allow_val_change=True,
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._run.define_metric("*", step_metric="round")
        before = 0 if known is None else max(known.round, self._run.step - 1)
        offline = self._mode == "offline"
        self.see = f"wandb sync {run.directory}/wandb/offline-run-*" if offline else str(self._run.url or self._mode)
        return Entry(id=identity, where=self._project, round=before)

    def send(self, points: Sequence[Point]) -> None:
        for point in points:
            self._run.log({"round": point.round, **point.numbers}, step=point.round)

    def attach(self, history: History, files: Sequence[Path]) -> None:
        import wandb

        summary = history.summary
        self._run.summary.update(
            {
                "final": summary.final.model_dump(),
                "best": summary.best.model_dump(),
                "rounds_to_target": summary.rounds_to_target,
                "weights_sha256": summary.weights_sha256,
            }
        )
        artifact = wandb.Artifact(f"fedopt-{self._run.id}", type="run")
        for file in files:
            artifact.add_file(str(file), policy="immutable", skip_cache=True)
        self._run.log_artifact(artifact)

    def close(self, outcome: Outcome) -> None:
        self._run.finish(exit_code=0 if outcome == "finished" else 1)
