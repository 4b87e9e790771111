"""Random experiments: a case is a pure function of the fuzz's seed, its index and the attempt at it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fedopt.experiment.experiment import Experiment
from fedopt.models.build import build_model
from tests.fuzz.data import VOCABULARY, Arrays, Kind, draw_arrays

Rng = np.random.Generator
Section = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One experiment, and the data that it is about."""

    seed: int
    index: int
    attempt: int
    model: str
    """The model's name, in short."""
    sections: dict[str, Section]
    arrays: Arrays | None
    """What data.npz holds; None for data that fedopt brings."""

    @property
    def name(self) -> str:
        return f"{self.seed}:{self.index}:{self.attempt}"

    @property
    def optimizer(self) -> str:
        local = self.sections["local"]
        kind = f"sam({local.get('base', 'sgd')})" if local["optimizer"] == "sam" else str(local["optimizer"])
        return kind + ("+clip" if "clip" in local else "")

    @property
    def is_deterministic(self) -> bool:
        """Whether the model draws nothing and writes nothing, so that the reference can follow it."""
        return self.model not in UNFAITHFUL

    def experiment(self, folder: Path) -> Experiment:
        """The experiment, whose data are written into the folder."""
        sections = {name: dict(section) for name, section in self.sections.items()}
        if self.arrays is not None:
            file = folder / "data.npz"
            if not file.exists():
                self.arrays.write(file)
            sections["data"] |= {"name": "npz", "path": file}
        return Experiment(**sections)

    def changed(self, section: str, **keys: Any) -> Case:
        """The case with keys set; a key of None is left out."""
        merged = {key: value for key, value in (self.sections[section] | keys).items() if value is not None}
        return replace(self, sections={**self.sections, section: merged})


def draw_case(seed: int, index: int, attempt: int = 0) -> Case:
    rng = np.random.default_rng((seed, index, attempt))
    kind, model = _model(rng)
    clients = int(rng.integers(1, 9))
    classes = int(rng.integers(3, 7))
    arrays = None if kind is None else draw_arrays(rng, kind, max(clients * 2, 16), classes)
    data: Section = {"clients": clients, **_partition(rng, clients, classes)}
    if kind is None:
        data |= {"name": "digits", "validation": 0.5} if rng.random() < 0.3 else {"name": "digits"}
        data["clients"] = clients = max(clients, 5)
    run = _run(rng, clients)
    local = _local(rng, small=kind is not None)
    if local.get("p", 2.0) == 1.0 and arrays is not None and arrays.classes == 2:
        local["p"] = 4.0  # with two classes the largest entries of a gradient come in pairs
    algorithm = _algorithm(rng)
    if rng.random() < 0.06:
        arrays, local = _near_convergence(rng, run["seed"], local)
        model, algorithm["name"], run["dtype"] = {"name": "logistic"}, "scaffold", "float32"
        data.pop("name", None), data.pop("validation", None)
        data["clients"] = min(data["clients"], 8)
        run["cohort"] = min(run["cohort"], data["clients"])
    name = str(model["name"]).rpartition(":")[2]
    sections = {"data": data, "model": model, "algorithm": algorithm, "local": local, "run": run}
    return Case(seed, index, attempt, name, sections | {"metrics": _metrics(rng)}, arrays)


def _near_convergence(rng: Rng, seed: int, local: Section) -> tuple[Arrays, Section]:
    """Data whose labels are what the initial logistic model says of them, surely; and plain SGD in small steps.

    Gradients are then small beside the weights, as at the end of training, which is where float32 runs out of digits.
    """
    features, classes, train, test = 10, int(rng.integers(3, 6)), int(rng.integers(30, 90)), 20
    x = float(_one(rng, [8.0, 12.0, 20.0])) * rng.standard_normal((4 * (train + test), features)).astype(np.float32)
    logistic = build_model(Experiment(model={"name": "logistic"}).model, (features,), classes, seed)
    with torch.no_grad():
        best, second = logistic(torch.from_numpy(x)).topk(2, dim=1).values.unbind(1)
        y = logistic(torch.from_numpy(x)).argmax(1).numpy()
    sure = np.argsort((second - best).numpy(), kind="stable")[: train + test]
    sure = rng.permutation(sure)
    x, y = x[sure], y[sure]
    work = {key: value for key, value in local.items() if key in ("steps", "epochs", "batch_size")}
    work |= {"optimizer": "sgd", "lr": _one(rng, [0.001, 0.002, 0.005])}
    return Arrays(x[:train], y[:train], x[train:], y[train:]), work


def _metrics(rng: Rng) -> Section:
    return {"drift": _one(rng, ["layers", "model", "off"]), "drift_every": _one(rng, [0, 1, 2]), "clients_every": 0}


def _one(rng: Rng, choices: list[Any]) -> Any:
    return choices[int(rng.integers(len(choices)))]


def _partition(rng: Rng, clients: int, classes: int) -> Section:
    name = _one(rng, ["iid", "dirichlet", "dirichlet", "dirichlet-balanced", "shards", "classes", "quantity"])
    alpha = float(f"{10 ** rng.uniform(-0.5, 1):.2g}")
    if name == "shards":
        return {"partition": name, "shards": int(rng.integers(1, 3))}
    if name == "classes":
        return {"partition": name, "classes": max(2, math.ceil(classes / clients))}
    return {"partition": name} if name == "iid" else {"partition": name, "alpha": alpha}


def _algorithm(rng: Rng) -> Section:
    section: Section = {"name": _one(rng, ["fedavg", "scaffold", "scaffold"])}
    section["weighting"] = _one(rng, ["samples", "uniform"])
    if rng.random() < 0.4:
        section["server_lr"] = _one(rng, [0.3, 0.7, 1.5])
    if section["name"] == "scaffold" and rng.random() < 0.2:
        section["variant"] = "full-gradient"
    return section


def _local(rng: Rng, *, small: bool) -> Section:
    optimizer = _one(rng, ["sgd", "sgd", "sgd", "adam", "adamw", "sam", "sam"])
    section: Section = {"optimizer": optimizer}
    if optimizer == "sam":
        section |= {"base": _one(rng, ["sgd", "sgd", "adam", "adamw"]), "rho": _one(rng, [0.01, 0.05, 0.2])}
        section["p"] = _one(rng, [2.0, 2.0, 2.0, 1.0, 4.0, 1.5, math.inf])
    if section.get("base", optimizer) == "sgd":
        section["lr"] = float(f"{10 ** rng.uniform(-3.2, -0.8):.2g}")
        if rng.random() < 0.5:
            section["momentum"] = _one(rng, [0.3, 0.5, 0.9])
            section["nesterov"] = bool(rng.random() < 0.4)
    else:
        section["lr"] = float(f"{10 ** rng.uniform(-3.5, -1.7):.2g}")
        if rng.random() < 0.4:
            section |= {"betas": [_one(rng, [0.0, 0.8, 0.9]), _one(rng, [0.9, 0.99])], "eps": _one(rng, [1e-8, 1e-4])}
    if rng.random() < 0.4:
        section["weight_decay"] = _one(rng, [1e-4, 1e-2, 0.1])
    if rng.random() < 0.3:
        section["clip"] = _one(rng, [0.05, 0.5, 2.0])
    section["batch_size"] = _one(rng, [1, 2, 3, 5, 8, 10, 16, "full"] if small else [32, 50, "full"])
    if rng.random() < 0.5 or not small:
        section["steps"] = int(rng.integers(1, 8))
    else:
        section["epochs"] = int(rng.integers(1, 3))
    return section


def _run(rng: Rng, clients: int) -> Section:
    section: Section = {
        "rounds": int(rng.integers(1, 4)),
        "cohort": int(rng.integers(1, clients + 1)),
        "seed": int(rng.integers(0, 1000)),
        "dtype": _one(rng, ["float64", "float64", "float32"]),
        "backend": _one(rng, ["auto", "auto", "auto", "stacked", "each", "each", "vmap"]),
        "lanes": _one(rng, [1, 2, 3, "auto"]),
        "workers": _one(rng, [1, 1, 1, 2]),
        "device": "cpu",
    }
    return section


def _model(rng: Rng) -> tuple[Kind | None, Section]:
    """The kind of data that a model takes, None for the digits, and its section."""
    if rng.random() < 0.06:
        name = _one(rng, list(UNFAITHFUL))
        takes: Kind = "sequence" if name == "attention_dropout" else "vector"
        return takes, {"name": MODELS + name}
    if rng.random() < 0.5:
        kind, draw = _one(rng, COMMON)
        section = draw(rng)
    else:
        kind, section = _one(rng, AWKWARD)
    if ":" not in section["name"] and section["name"][:1].isupper():
        section = {**section, "name": section["name"].lower()}
    return kind, section


def _widths(rng: Rng, most: int = 24) -> list[int]:
    return [int(width) for width in rng.integers(1, most, int(rng.integers(1, 4)))]


SMOOTH = ["gelu", "gelu-tanh", "silu", "sigmoid", "tanh", "softplus", "elu"]
MODELS = "tests.fuzz.models:"


def _dense(rng: Rng) -> Section:
    activation = _one(rng, [*SMOOTH, "relu", "relu", "relu-inplace", "leaky", "identity"])
    norm, bias = bool(rng.random() < 0.3), bool(rng.random() < 0.8)
    widths = [max(3, width) for width in _widths(rng)] if norm else _widths(rng)
    return {"name": MODELS + "dense", "hidden": widths, "activation": activation, "norm": norm, "bias": bias}


def _convolutional(rng: Rng) -> Section:
    groups = int(_one(rng, [0, 0, 1, 2]))
    channels = [2 * int(width) for width in rng.integers(1, 4, int(rng.integers(1, 3)))]
    return {
        "name": MODELS + "convolutional",
        "channels": channels,
        "activation": _one(rng, ["relu", "relu-inplace", "gelu", "silu", "tanh"]),
        "pool": _one(rng, ["max", "average", "global", "none"]),
        "groups": groups,
        "bias": groups == 0 and bool(rng.random() < 0.8),
        "kernel": _one(rng, [1, 3, 3, 2]),
    }


UNFAITHFUL = (
    *("noise", "functional_dropout", "shuffled", "numpy_noise", "dropout_layer", "attention_dropout"),
    *("writer", "counter", "batch_norm"),
)
"""Models that draw random numbers or change themselves: refused, or the same bits however they are run."""

COMMON: list[tuple[Kind | None, Callable[[Rng], Section]]] = [
    ("vector", lambda rng: {"name": "logistic"}),
    ("image", lambda rng: {"name": "logistic"}),
    ("vector", lambda rng: {"name": "mlp", "hidden": _widths(rng, 40)}),
    ("image", lambda rng: {"name": "mlp", "hidden": _widths(rng)}),
    (None, lambda rng: {"name": "mlp", "hidden": _widths(rng, 40)}),
    ("large image", lambda rng: {"name": "cnn"}),
    ("image", lambda rng: {"name": "resnet8", "groups": int(_one(rng, [1, 2, 4, 8]))}),
    ("vector", _dense),
    ("vector", _dense),
    ("image", _convolutional),
    ("image", _convolutional),
]
"""Models that people use: drawn half of the time."""


ODD_CONVOLUTIONS = (
    *("groups", "dilation", "stride", "even", "oblong", "reflect", "overlap"),
    *("ceil", "padded-mean", "grid", "instance"),
)


def _awkward() -> list[tuple[Kind, Section]]:
    on_vectors = (
        "inplace_relu alias no_grad_body detached inplace_chain broadcast_sum scalar_sum twice train_branch "
        "batch_centred unused control_flow tensor_hook concatenated functional straight_through standardised "
        "own_function frozen_layer frozen_bias root_hook root_pre_hook layer_hook inner_hook backward_hook "
        "backward_pre_hook root_backward_pre_hook parameter_hook patched_method patched_closure subclassed "
        "constants weight_norm tied"
    )
    found: list[tuple[Kind, Section]] = [("vector", {"name": MODELS + name}) for name in on_vectors.split()]
    for kind in [
        "groups",
        "dilation",
        "stride",
        "even",
        "oblong",
        "reflect",
        "overlap",
        "ceil",
        "padded-mean",
        "grid",
        "instance",
    ]:
        found.append(("image", {"name": MODELS + "odd_convolution", "kind": kind}))
    for norm in (True, False):
        found.append(("image", {"name": MODELS + "preactivation_block", "norm": norm}))
    found += [("image", {"name": MODELS + name}) for name in ("broadcast_pool", "gated_pool")]
    for kind in ("lstm", "gru", "rnn"):
        found.append(("sequence", {"name": MODELS + "recurrent", "kind": kind}))
    found.append(("sequence", {"name": MODELS + "recurrent", "kind": "lstm", "layers": 2}))
    found += [("sequence", {"name": MODELS + "attention", "kind": kind}) for kind in ("layer", "block")]
    for kind in ("plain", "padded", "tied"):
        found.append(("tokens", {"name": MODELS + "embedding", "vocabulary": VOCABULARY, "kind": kind}))
    return found


AWKWARD = _awkward()
"""Modules that only eager autograd is sure to understand: the other half."""
