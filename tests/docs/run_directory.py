"""docs/run-directory.md: every file of a run, and every field."""

from __future__ import annotations

from collections.abc import Mapping

from fedopt.data.fingerprint import Fingerprint
from fedopt.data.label_skew import LabelSpread
from fedopt.runs.checkpoint import MAY_CHANGE
from fedopt.runs.history import RoundRecord, Summary
from fedopt.runs.model_file import ModelFacts
from fedopt.runs.modules import Modules
from fedopt.storage.record import Line
from tests.docs.markdown import code, formula, listed, page, table, wrapped


def run_directory_page() -> str:
    lines = [
        *wrapped(
            "A run writes one directory: the experiment, a line of numbers for each round, the model, and what a "
            "stopped run needs to continue. The names of files and fields are stable, because scripts read them."
        ),
        "",
        "```sh",
        "fedopt run --set algorithm.name=scaffold --set run.rounds=3 --out runs/a --quiet",
        "ls runs/a",
        "```",
        "",
        "<!-- checked -->",
        "```text",
        *("checkpoint", "experiment.toml", "fingerprint.json", "metrics.jsonl"),
        *("model.safetensors", "partition.json", "scaling.safetensors", "summary.json"),
        "```",
        "",
        "```python",
        "import json",
        "from pathlib import Path",
        "",
        "from safetensors.torch import load_file",
        "",
        'records = [json.loads(line) for line in Path("runs/a/metrics.jsonl").read_text().splitlines()]',
        'print([record["round"] for record in records], records[-1]["drift"]["ratio"] >= 1)',
        'weights = load_file("runs/a/model.safetensors")',
        "print(sorted(weights))",
        "```",
        "",
        "<!-- checked -->",
        "```text",
        "[1, 2, 3] True",
        "['1.bias', '1.weight', '3.bias', '3.weight']",
        "```",
        "",
        "## Files",
        "",
        *table(("file", "content"), ([f"`{name}`", about] for name, about in FILES.items())),
        "",
        *wrapped(
            "Every file but `metrics.jsonl` is replaced atomically: a reader sees the old one or the new one. "
            "`metrics.jsonl` grows by a line after each round. A process that runs or resumes a run locks its "
            "directory; a second one is refused."
        ),
        "",
        "## metrics.jsonl",
        "",
        "One JSON object a round. [Drift measures](drift.md) explains the fields of the nested objects.",
        "",
        *_fields(RoundRecord),
        "",
        "## summary.json",
        "",
        "Written when the run has ended, and removed when it is continued.",
        "",
        *_fields(Summary),
        "",
        "## partition.json",
        "",
        "The samples of each client, by its number, and how its labels differ from those of all clients.",
        "",
        *_fields(LabelSpread),
        "",
        "## fingerprint.json",
        "",
        "`--resume` refuses other data, and `fedopt report` compares only runs on the same data.",
        "",
        *_fields(Fingerprint),
        "",
        "## model.safetensors",
        "",
        "The weights under their state_dict names. The file's header has an entry `fedopt`, in JSON:",
        "",
        *_fields(ModelFacts),
        "",
        "## models/",
        "",
        *wrapped(
            "With `run.keep_models = 10`, `round-000010.safetensors`, `round-000020.safetensors` and so on: the global "
            "model after each tenth round and after the last, in the format of `model.safetensors`. "
            "`history.model(round=10)` loads one, and `history.kept_rounds` has the rounds. A run that is resumed "
            "removes those after its checkpoint and makes them again, with the same bits. If it goes on after its "
            "last round, the model of that round stays."
        ),
        "",
        "## modules.json",
        "",
        *_fields(Modules),
        "",
        "## checkpoint/",
        "",
        *wrapped(
            "What `--resume` reads. `checkpoint.json` names the round and has a checksum over its entries; the vectors "
            "lie in files that are named by round and never changed, so a run that is killed at any moment leaves its "
            "last checkpoint intact. Nothing is pickled."
        ),
        "",
        *table(
            ("file", "content"),
            [
                ["`checkpoint.json`", "round, experiment, seconds so far, and which clients were accepted when"],
                ["`server-round-000012.safetensors`", "the global model and the algorithm's vectors beside it"],
                ["`clients/`", "each client's state; of a deployed run `federation.json`, because clients keep theirs"],
            ],
        ),
        "",
        *wrapped(
            "A resumed run may change only keys that do not change the rounds so far: "
            + listed(code(f"{section}.{key}") for section, keys in MAY_CHANGE.items() for key in sorted(keys))
            + "."
        ),
    ]
    return page("Run directory", lines)


FILES: Mapping[str, str] = {
    "experiment.toml": "the experiment with all keys, defaults included; `fedopt run` on it repeats the run",
    "metrics.jsonl": "a line for each round",
    "partition.json": "the samples of each client",
    "fingerprint.json": "hashes of the data and of their partition",
    "scaling.safetensors": "mean and deviation of each feature or channel, where samples were shifted and scaled; "
    "`history.prepare` reads it",
    "summary.json": "final and best accuracy, time, versions; there when the run has ended",
    "model.safetensors": "the latest global model under its state_dict names, for `module.load_state_dict`",
    "models/": "with `run.keep_models`, the global models of single rounds",
    "checkpoint/": "what `--resume` reads",
    "initial.safetensors": "the initial weights of a module that was passed as `fedopt.run(..., model=...)`",
    "modules.json": "where code from outside was found, so that `--resume` works from any folder",
    "report.html": "the page of `fedopt report`, with `--track` also made when the run ends",
    "failure.txt": "of a study's run that failed: why",
    "analysis/": "of `fedopt analyze`: figures, numbers and, in `cache/`, what it need not compute again",
    "tracking.json": "which tracker has which rounds, and the id of its run, so that a resumed run goes on there",
    "tensorboard/": "event files, with `--track tensorboard`",
    "wandb/": "of W&B, with `--track wandb`",
    "server.log": "of a deployed run: clients that joined, left, were refused or late, and how it ended",
    "clients.log": "of `fedopt federation`: what its clients print",
    "client-state/": "of `fedopt federation`: what its clients store",
}
"""Every file that may be in a run's directory."""


def _fields(record: type[Line]) -> list[str]:
    """A table of the fields of a record, those of objects in it below them."""
    rows: list[list[str]] = []
    for name, field in record.model_fields.items():
        rows.append([code(name), formula(field.description or "")])
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Line):
            below = inner.model_fields.items()
            rows += [[code(f"{name}.{under}"), formula(one.description or "")] for under, one in below]
    return table(("field", "meaning"), rows)
