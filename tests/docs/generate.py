"""`python -m tests.docs.generate` writes the reference pages of docs/ from the code: `make docs` does so first."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import groupby
from typing import cast

from fedopt.algorithms import ALGORITHMS
from fedopt.experiment.algorithms import AlgorithmFacts, algorithm_facts, keepers, traffic
from fedopt.experiment.keys import Group, Key, key_groups
from fedopt.optimizers import OPTIMIZERS
from fedopt.optimizers.base import Optimizer
from fedopt.registry import Registry
from fedopt.runs.catalog import NOTATION, READING, algorithm_records, metrics
from tests.docs.blocks import ROOT
from tests.docs.markdown import code, formula, listed, marked_up, page, plain, table, wrapped
from tests.docs.optimizer_notes import NOTES
from tests.docs.proofs import proofs
from tests.docs.run_directory import run_directory_page


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
    return page("Experiment keys", lines)


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
    return page("Drift measures", lines)


def algorithms_page() -> str:
    lines = [
        *wrapped(
            "`algorithm.name` chooses what clients send and what the server does with it. `fedopt list algorithms` "
            "prints the same facts in a terminal; [Extending](extending.md) shows how to add an algorithm."
        ),
        "",
        *_names_table(ALGORITHMS),
        "",
        *wrapped(
            marked_up(
                "x is the global model, y_i a client's model after its local steps, g its minibatch gradient, f_i its "
                "mean loss, N the number of clients. p_i is the client's weight among all clients, and w_i that "
                "among the round's clients; both add up to 1. All algorithms have `algorithm.server_lr` and "
                "`algorithm.weighting`. Vectors that travel or are kept have the size of the model. The test named "
                "below each algorithm compares it with a plain implementation or with closed forms, round by round."
            )
        ),
        "",
        *wrapped(
            "For Mime, MimeLite, FedCM, FedLADA, FedMuon, FedLin, Scaffnew and FedPer the rule comes from abstracts, "
            "summaries and the code of other libraries. The full papers and the authors' code were not at hand."
        ),
        "",
        "![Test accuracy over rounds of the algorithms on digits](images/algorithms.svg)",
        "",
        *wrapped(
            "One small setting, which is no ranking: digits over 20 clients with Dirichlet(0.1) labels, half of them a "
            "round, defaults for all other keys, mean over two seeds. `python -m tests.docs.curves` draws it."
        ),
        "",
        "## Where to begin",
        "",
        *wrapped(
            "Begin with `fedavg`, and compare `scaffold`, `feddyn` or `fedacg` with it where clients' data differ. "
            "Where each client is to have a model that is good on its own data, compare `finetune`, `ditto` and "
            "`fedper` with `local`, which needs no federation. `central` shows what the data allow at best. Where "
            "clients take different numbers of steps, `fednova` keeps the objective right; `fedadam` and `fedyogi` "
            "make server rates easier to tune. FedSpeed, Scaffnew and DiLoCo want all clients, or most, in every "
            "round. [Results](results.md#the-family-on-mnist) has a table of them all in one setting, with their "
            "costs, and the reasons where one is worse than FedAvg."
        ),
    ]
    records = algorithm_records()
    for facts in algorithm_facts():
        lines += ["", f"## {facts.name}", "", *wrapped(marked_up(facts.citation)), "", "```text", facts.formula, "```"]
        for remark in facts.remarks:
            lines += ["", *wrapped(marked_up(re.sub(r"^Traps: ", "**Traps.** ", remark)))]
        kept = keepers(facts, code)
        lines += ["", *wrapped(f"A round: {traffic(facts, code)}.{f' Between rounds {kept}.' if kept else ''}")]
        lines += ["", *_key_table(facts.keys)] if facts.keys else []
        lines += _other_defaults(facts)
        lines += ["", *wrapped(_tested(facts))]
        if facts.name in records:
            fields = records[facts.name].model_fields.items()
            measures = ([code(f"algorithm.{field}"), formula(info.description or "")] for field, info in fields)
            lines += ["", *table(("measure", "meaning"), measures)]
    return page("Algorithms", lines)


def optimizers_page() -> str:
    lines = [
        *wrapped(
            "`local.optimizer` chooses what takes a client's local steps. Where an algorithm corrects gradients, the "
            "optimizer gets the corrected ones. Some algorithms need a certain optimizer, or none that adapts its "
            "steps; they refuse another one with the reason. `local.lr` is 0.05 by default, which suits sgd; 0.001 is "
            "usual with adam and its relatives. `fedopt list optimizers` prints the table in a terminal; "
            "[Extending](extending.md) shows how to add one."
        ),
        "",
        *_names_table(OPTIMIZERS),
        "",
        *wrapped(
            "θ is the client's model and g its minibatch gradient. `local.state` says what becomes of the moments "
            "between rounds: they start at zero (`reset`), each client keeps its own (`keep`), or the server averages "
            "them (`average`). Optimizers that divide by the root of a second moment v can also average v alone "
            "(`average-v`) or its mean over each parameter tensor (`block-v`); the first moment then starts at zero. "
            "Adam's count of steps travels with v: v is divided by 1 − β₂^t with the steps t of all rounds, m by "
            "1 − β₁^k with the steps k of this one."
        ),
        "",
        *wrapped(
            "`local.groups` gives parameters a rate and a weight decay of their own, by patterns of their names: see "
            "[Models](models.md#parameter-groups)."
        ),
    ]
    keys = {name: group for group in key_groups() if group.chosen_by == "local.optimizer" for name in group.members}
    for name in OPTIMIZERS:
        lines += ["", f"## {name}", "", *_about(OPTIMIZERS, name)]
        lines += ["", *wrapped(NOTES[name])] if name in NOTES else []
        lines += _own_keys(name, keys)
        kind = cast(type[Optimizer], OPTIMIZERS.load(name))
        moments = kind().moment_names
        if moments:
            lines += ["", f"Moments: {listed(map(code, moments))}."]
    return page("Optimizers", lines)


PAGES: Mapping[str, Callable[[], str]] = {
    "experiment.md": experiment_page,
    "drift.md": drift_page,
    "algorithms.md": algorithms_page,
    "optimizers.md": optimizers_page,
    "run-directory.md": run_directory_page,
}


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


def _tested(facts: AlgorithmFacts) -> str:
    tests, papers = proofs(facts.name, facts.kind)
    against = f", against {listed(map(code, papers))}" if papers else ""
    return f"Tested in {listed(map(code, tests))}{against}."


def _other_defaults(facts: AlgorithmFacts) -> list[str]:
    """A sentence on keys of its server optimizer and of [local] whose defaults are others under this algorithm."""
    named = [f"{code(key)} = {code(json.dumps(value))}" for key, value in facts.other_defaults.items()]
    return ["", *wrapped(f"Other defaults under {facts.name}: {listed(named)}.")] if named else []


def _key_table(keys: Iterable[Key]) -> list[str]:
    rows = (
        [
            code(key.name),
            plain(key.meaning),
            re.sub(r'"[^"]*"', lambda found: code(found[0]), key.kind),
            key.default if key.default == "required" else code(key.default),
        ]
        for key in keys
    )
    return table(("key", "meaning", "values", "default"), rows)


def main() -> None:
    for name, written in PAGES.items():
        file = ROOT / "docs" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(written(), encoding="utf-8")


if __name__ == "__main__":
    main()
