"""`python -m tests.docs.generate` writes the reference pages of docs/ from the code: `make docs` does so first."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from typing import cast

from fedopt.algorithms import ALGORITHMS
from fedopt.algorithms.base import Algorithm
from fedopt.data.fingerprint import Fingerprint
from fedopt.data.label_skew import LabelSpread
from fedopt.experiment.keys import Group, Key, key_groups
from fedopt.optimizers import OPTIMIZERS
from fedopt.optimizers.base import Optimizer
from fedopt.registry import Registry
from fedopt.runs.catalog import NOTATION, READING, algorithm_records, metrics
from fedopt.runs.checkpoint import MAY_CHANGE
from fedopt.runs.history import RoundRecord, Summary
from fedopt.runs.modules import Modules
from fedopt.storage.record import Line
from tests.docs.blocks import ROOT
from tests.docs.markdown import code, formula, listed, plain, table, wrapped

BY_HAND = "<!-- Written by `make docs` from the code: edit the docstrings there. -->"


def experiment_page() -> str:
    lines = [
        *wrapped(
            "An experiment describes a run: data, model, algorithm, local training, and how long. It is a TOML file, "
            "or `fedopt.Experiment` in Python, with the same sections and keys. Missing keys use the defaults below; "
            "a key that does not exist is refused with the closest one that does."
        ),
        "",
        '```toml title="experiment.toml"',
        "[data]",
        "clients = 20",
        'partition = "dirichlet"',
        "alpha = 0.1",
        "",
        "[algorithm]",
        'name = "scaffold"',
        "",
        "[run]",
        "rounds = 3",
        "```",
        "",
        "```sh",
        "fedopt run experiment.toml --set local.lr=0.1 --out runs/a --quiet",
        "```",
        "",
        *wrapped(
            "`--set section.key=value` sets any key from the command line, and `runs/a/experiment.toml` has the run's "
            "keys with all defaults. Some keys belong to the chosen algorithm, optimizer, partition and so on: a "
            'heading such as `data.partition` = `"shards"` says to which. `fedopt list keys` prints the tables in a '
            "terminal."
        ),
    ]
    for section, groups in groupby(key_groups(), key=lambda group: group.section):
        for group in groups:
            lines += ["", f"## \\[{section}\\] {{#{section}}}" if not group.members else f"### {_heading(group)}"]
            lines += ["", group.about] if group.about else []
            lines += ["", *_key_table(group.keys)]
    return _page("Experiment keys", lines)


def drift_page() -> str:
    lines = [
        *wrapped(
            "Every run measures how far its clients drift apart, and writes it to `metrics.jsonl`, one line a round. "
            "All engines use the same names, and measuring never changes the model. `fedopt list metrics` prints the "
            "tables in a terminal."
        ),
        "",
        "```python",
        "import fedopt",
        "",
        'experiment = fedopt.Experiment(algorithm={"name": "scaffold"}, run={"rounds": 2})',
        "last = fedopt.run(experiment).records[-1]",
        "print(last.drift.ratio, last.drift.cosine, last.gradients.zeta2, last.clients.worst)",
        "```",
        "",
        "When each part is measured:",
        "",
        "- `drift`: every round, from the sums of the aggregation, for the model and for each layer;",
        "  `metrics.drift` chooses.",
        "- `gradients`: every `metrics.drift_every` = 10 rounds, from full local gradients. Clients send one",
        "  more vector in these rounds.",
        "- `clients`: every `metrics.clients_every` = 10 rounds, on each client's own test share. In a",
        "  deployment the model is sent to each connected client for that; 0 turns it off.",
        "- `classes`: with every evaluation.",
        "- `divergence`: with `metrics.divergence = true`, in `fedopt run` only.",
        "- `partition.json`: once.",
        "",
        *wrapped(
            "A low drift ratio is not a merit in itself, and it does not measure how heterogeneous the data are: it "
            "rises towards iid data, where updates late in training are small and orthogonal, while ζ² falls. "
            "[Results](results.md) shows both on MNIST."
        ),
        "",
        "## Notation",
        "",
        *wrapped(formula(NOTATION)),
        "",
        *wrapped(formula(READING)),
    ]
    for title, entries in metrics().items():
        name, _, meaning = title.partition(": ")
        lines += ["", f"## {name[:1].upper()}{name[1:]}", *(["", formula(meaning)] if meaning else []), ""]
        lines += table(("name", "meaning"), ([code(key), formula(text)] for key, text in entries.items()))
    return _page("Drift measures", lines)


def algorithms_page() -> str:
    lines = [
        *wrapped(
            "`algorithm.name` chooses what clients send and what the server does with it. `fedopt list algorithms` "
            "prints the table in a terminal."
        ),
        "",
        *_names_table(ALGORITHMS),
        "",
        *wrapped(
            "x is the global model, yᵢ a client's model after its local steps, g its minibatch gradient, wᵢ the "
            "client's weight among the round's clients (they add up to 1), pᵢ its weight among all clients."
        ),
    ]
    records = algorithm_records()
    keys = {name: group for group in key_groups() if group.section == "algorithm" for name in group.members}
    for name in ALGORITHMS:
        kind = cast(type[Algorithm], ALGORITHMS.load(name))
        lines += ["", f"## {name}", "", *_about(ALGORITHMS, name), ""]
        many = len(kind.sends_up) > 1
        vectors = "vectors of the model's size" if many else "a vector of the model's size"
        lines += [f"A client sends {listed(map(code, kind.sends_up))}, {vectors}."]
        lines += _own_keys(name, keys)
        if name in records:
            fields = records[name].model_fields.items()
            measures = ([code(f"algorithm.{field}"), formula(info.description or "")] for field, info in fields)
            lines += ["", *table(("measure", "meaning"), measures)]
    return _page("Algorithms", lines)


def optimizers_page() -> str:
    lines = [
        *wrapped(
            "`local.optimizer` chooses what takes a client's local steps. Every optimizer works under every algorithm: "
            "where an algorithm corrects gradients, the optimizer gets the corrected ones. `fedopt list optimizers` "
            "prints the table in a terminal."
        ),
        "",
        *_names_table(OPTIMIZERS),
        "",
        *wrapped(
            "θ is the client's model and g its minibatch gradient. `local.state` says what becomes of the moments "
            "between rounds: they start at zero (`reset`), each client keeps its own (`keep`), or the server averages "
            "them (`average`)."
        ),
    ]
    keys = {name: group for group in key_groups() if group.chosen_by == "local.optimizer" for name in group.members}
    for name in OPTIMIZERS:
        lines += ["", f"## {name}", "", *_about(OPTIMIZERS, name), *_own_keys(name, keys)]
        kind = cast(type[Optimizer], OPTIMIZERS.load(name))
        moments = kind().moment_names
        if moments:
            lines += ["", f"Moments: {listed(map(code, moments))}."]
    return _page("Optimizers", lines)


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
        *("model.safetensors", "partition.json", "summary.json"),
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
    return _page("Run directory", lines)


FILES: Mapping[str, str] = {
    "experiment.toml": "the experiment with all keys, defaults included; `fedopt run` on it repeats the run",
    "metrics.jsonl": "a line for each round",
    "partition.json": "the samples of each client",
    "fingerprint.json": "hashes of the data and of their partition",
    "summary.json": "final and best accuracy, time, versions; there when the run has ended",
    "model.safetensors": "the latest global model under its state_dict names, for `module.load_state_dict`",
    "checkpoint/": "what `--resume` reads",
    "modules.json": "where code from outside was found, so that `--resume` works from any folder",
    "tracking.json": "which tracker has which rounds, and the id of its run, so that a resumed run goes on there",
    "tensorboard/": "event files, with `--track tensorboard`",
    "wandb/": "of W&B, with `--track wandb`",
    "server.log": "of a deployed run: clients that joined, left, were refused or late, and how it ended",
    "clients.log": "of `fedopt federation`: what its clients print",
    "client-state/": "of `fedopt federation`: what its clients store",
}
"""Every file that may be in a run's directory."""


PAGES: Mapping[str, Callable[[], str]] = {
    "experiment.md": experiment_page,
    "drift.md": drift_page,
    "algorithms.md": algorithms_page,
    "optimizers.md": optimizers_page,
    "run-directory.md": run_directory_page,
}


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


def _page(title: str, lines: Iterable[str]) -> str:
    return "\n".join([f"# {title}", "", BY_HAND, "", *lines]) + "\n"


def _heading(group: Group) -> str:
    names = listed((code(f'"{name}"') for name in group.members), "or")
    return f"{code(group.chosen_by)} = {names}"


def _about(registry: Registry, name: str) -> list[str]:
    entry = registry.entry(name)
    sentence = entry.about[:1].upper() + entry.about[1:]
    return [
        f"{sentence} ({entry.paper})." if entry.paper else f"{sentence}.",
        *(["", code(entry.rule)] * bool(entry.rule)),
    ]


def _names_table(registry: Registry) -> list[str]:
    entries = {name: registry.entry(name) for name in registry}
    rows = ([f"[{code(name)}](#{name})", entry.about, entry.paper] for name, entry in entries.items())
    return table(("name", "what it does", "paper"), rows)


def _own_keys(name: str, groups: Mapping[str, Group]) -> list[str]:
    return ["", *_key_table(groups[name].keys)] if name in groups else []


def _key_table(keys: Iterable[Key]) -> list[str]:
    rows = (
        [
            code(key.name),
            re.sub(r'"[^"]*"', lambda found: code(found[0]), key.kind),
            key.default if key.default == "required" else code(key.default),
            plain(key.meaning),
        ]
        for key in keys
    )
    return table(("key", "values", "default", "meaning"), rows)


def main() -> None:
    for name, page in PAGES.items():
        file = ROOT / "docs" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
