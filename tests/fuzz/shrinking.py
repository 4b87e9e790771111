"""Makes a case that disagrees smaller: settings go back to their plainest while it still disagrees."""

from __future__ import annotations

from typing import Any

from tests.fuzz.cases import Case
from tests.fuzz.judging import NOT_JUDGED, Result, settle_case

SIMPLER: list[tuple[str, dict[str, Any]]] = [
    ("algorithm", {"name": "fedavg", "variant": None}),
    ("algorithm", {"variant": None}),
    ("algorithm", {"server_lr": None}),
    ("algorithm", {"weighting": "uniform"}),
    ("local", {"optimizer": "sgd", "base": None, "rho": None, "p": None}),
    ("local", {"base": "sgd"}),
    ("local", {"p": 2.0}),
    ("local", {"betas": None, "eps": None}),
    ("local", {"momentum": None, "nesterov": None}),
    ("local", {"nesterov": None}),
    ("local", {"weight_decay": None}),
    ("local", {"clip": None}),
    ("local", {"steps": 1, "epochs": None}),
    ("local", {"steps": 2, "epochs": None}),
    ("local", {"batch_size": "full"}),
    ("local", {"batch_size": 4}),
    ("data", {"partition": "iid", "alpha": None, "shards": None, "classes": None}),
    ("data", {"clients": 1}),
    ("data", {"clients": 2}),
    ("run", {"rounds": 1}),
    ("run", {"rounds": 2}),
    ("run", {"cohort": 1}),
    ("run", {"dtype": "float64"}),
    ("run", {"lanes": 1}),
    ("run", {"workers": 1}),
    ("run", {"backend": "each"}),
    ("run", {"backend": "auto"}),
    ("model", {"hidden": [3]}),
    ("model", {"norm": False}),
    ("model", {"bias": True}),
    ("model", {"channels": [2]}),
    ("model", {"groups": 0}),
    ("metrics", {"drift": "off", "drift_every": 0}),
]


def shrink(case: Case, result: Result) -> tuple[Case, Result]:
    """The smallest case found, and what comes of it."""
    changed = True
    while changed:
        changed = False
        for section, keys in SIMPLER:
            simpler = _simpler(case, section, keys)
            if simpler is None:
                continue
            found = settle_case(simpler, processes=bool({"ranks", "deployed"} & set(result.varied)))
            if not found.agrees and found.status not in NOT_JUDGED:
                case, result, changed = simpler, found, True
    return case, result


def _simpler(case: Case, section: str, keys: dict[str, Any]) -> Case | None:
    """None where the keys are as simple, are not there, or do not go with the others."""
    own = case.sections[section]
    there = {key: value for key, value in keys.items() if key in own or (section, key) == ("local", "steps")}
    if all(own.get(key) == value for key, value in there.items()):
        return None
    if keys.get("steps") == 2 and own.get("steps") in (1, 2):
        return None
    if (keys.get("rounds") == 2 and own["rounds"] < 2) or (keys.get("clients") == 2 and own["clients"] < 2):
        return None
    simpler = case.changed(section, **there)
    if simpler.sections["run"]["cohort"] > simpler.sections["data"]["clients"]:
        simpler = simpler.changed("run", cohort=simpler.sections["data"]["clients"])
    return simpler
