"""One case through fedopt and through the reference, and how far apart they end.

Weights are compared as one vector, by the Euclidean norm of the difference relative to that of the update x_T - x_0:
the initial weights are shared, so the update is all that either has computed, and an entry near zero is no less exact
than the sums it comes from. What rounding does to the weights themselves, a few units of their last place, is allowed
for. In float64 they may be EXACT apart. In float32 fedopt may be LOOSE times as far from the float64 reference as
the reference itself in float32 is, in the worst of several orders of the samples within minibatches.

A case whose reference in float64 depends on that order by more than ILL says nothing about either: it is not judged.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file
from torch import Tensor

import fedopt
from fedopt.errors import Diverged, InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.runs.history import History, RoundRecord
from tests.fuzz.cases import Case
from tests.fuzz.reference import Outcome, Reference, shared

EXACT = 1e-9
LOOSE = 10.0
ILL = 1e-11
CONTROL = 5e-3
"""What SCAFFOLD's controls may be off in float32, of their own length, however exact plain torch is."""

ORDERS, MORE_ORDERS = 2, 10
"""How many orders of samples the float32 reference is run in at first, and before fedopt is found guilty."""

Status = Literal["agrees", "disagrees", "refused", "diverged", "ill-conditioned", "crashed"]


@dataclass
class Verdict:
    """What came of one case."""

    status: Status
    backend: str = "?"
    deviation: float = 0.0
    """The largest difference, as a part of what is allowed."""
    of: str = ""
    """What that is a difference of."""
    weights: float = 0.0
    """Of the final weights, relative to the update."""
    complaints: list[str] = field(default_factory=list)


class Listener:
    """Hears which backend trains the clients."""

    def __init__(self) -> None:
        self.backend = "?"

    def note(self, sentence: str) -> None:
        found = re.search(r"\b(stacked|each|vmap)\b", sentence)
        if found:
            self.backend = found.group(1)

    def started(self, directory: Path, rounds_done: int, rounds: int) -> None:
        pass

    def round_done(self, record: RoundRecord) -> None:
        pass

    def ended(self) -> None:
        pass


def play(experiment: Experiment, out: Path) -> tuple[History, str]:
    """The run, and the backend that it took."""
    listener = Listener()
    return fedopt.run(experiment, out, [listener]), listener.backend


def judge(case: Case, folder: Path) -> tuple[Verdict, History | None]:
    """Runs the case both ways; the folder is a new one."""
    try:
        experiment = case.experiment(folder)
        history, backend = play(experiment, folder / "run")
    except InvalidExperiment as error:
        return Verdict("refused", complaints=[str(error)]), None
    except Diverged as error:
        return Verdict("diverged", complaints=[str(error)]), None
    if not case.is_deterministic:
        verdict = Verdict("agrees", backend)
        _check_saved_model(experiment, history, verdict)
        return verdict, history
    return compare(experiment, history, backend), history


def compare(experiment: Experiment, history: History, backend: str) -> Verdict:
    exact, again = (reference(experiment, torch.float64, order) for order in (None, 0))
    if not exact.x.isfinite().all() or _distance(exact.x, again.x, exact) > ILL:
        return Verdict("ill-conditioned", backend)
    if experiment.run.dtype == "float64":
        return _verdict(experiment, history, backend, exact, [])
    plain: list[Outcome] = []
    for orders in (ORDERS, MORE_ORDERS):
        plain += [
            reference(experiment, torch.float32, order) for order in [None, *range(1, orders)][len(plain) : orders]
        ]
        verdict = _verdict(experiment, history, backend, exact, plain)
        if verdict.status == "agrees":
            break
    return verdict


def reference(experiment: Experiment, dtype: torch.dtype, order: int | None = None) -> Outcome:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return Reference(shared(experiment, dtype, order), experiment).run()
    finally:
        torch.set_num_threads(before)


def _distance(x: Tensor, y: Tensor, exact: Outcome) -> float:
    """Relative to the update."""
    update = (exact.x - exact.start).norm().item()
    return _length(x, y) / float(max(update, 1e-300))


def _length(x: Tensor, y: Tensor) -> float:
    """Of the difference."""
    return float((x.double() - y.double()).norm())


def _verdict(
    experiment: Experiment, history: History, backend: str, exact: Outcome, plain: Sequence[Outcome]
) -> Verdict:
    verdict = Verdict("agrees", backend)

    def check(
        what: str, found: float, expected: float, yardstick: Sequence[float], scale: float, rounding: float = 0.0
    ) -> None:
        """`yardstick` are what plain runs in float32 found; `scale` is how large such numbers are.

        `rounding` is what a unit of the weights' last place may do to it.
        """
        apart = abs(found - expected)
        floor = EXACT if not plain else 1e-6
        allowed = floor * max(scale, 1e-300) + LOOSE * max((abs(own - expected) for own in yardstick), default=0.0)
        allowed += rounding
        judge_distance(what, apart, allowed, f"{found:.12g}, expected {expected:.12g}")

    def judge_distance(what: str, apart: float, allowed: float, detail: str) -> None:
        part = apart / allowed if math.isfinite(apart) else math.inf
        if part > verdict.deviation:
            verdict.deviation, verdict.of = part, what
        if part > 1:
            verdict.status = "disagrees"
            verdict.complaints.append(f"{what}: {detail} (off by {apart:.3g}, allowed {allowed:.3g})")

    # Weights
    weights = trained(experiment, history)
    update, length = (exact.x - exact.start).norm().item(), exact.x.norm().item()
    unit = length * (2**-23 if plain else 1e-15)
    verdict.weights = _distance(weights, exact.x, exact)
    if plain:
        plainly = max(_length(own.x, exact.x) for own in plain)
        allowed = LOOSE * plainly + unit
    else:
        plainly, allowed = 0.0, EXACT * update + unit
    apart = _length(weights, exact.x)
    judge_distance("weights", apart, allowed, f"{verdict.weights:.3g} of the update, plain torch {plainly:.3g}")

    # SCAFFOLD's control
    if exact.c is not None:
        c = server_vectors(history)["c"].double()
        allowed = (CONTROL if plain else EXACT) * exact.control_scale + 1e-300
        allowed += LOOSE * max(
            ((own.c.double() - exact.c).norm().item() for own in plain if own.c is not None), default=0
        )
        apart = _length(c, exact.c)
        judge_distance("control c", apart, allowed, f"{apart / max(exact.control_scale, 1e-300):.3g} of the controls")

    # What the records say
    for number, (record, expected) in enumerate(zip(history.records, exact.rounds, strict=True)):
        own = [outcome.rounds[number] for outcome in plain]
        where = f"round {record.round}: "
        check(where + "train_loss", record.train_loss, expected.train_loss, [o.train_loss for o in own], 1.0)
        assert record.test_loss is not None
        assert record.test_accuracy is not None
        check(where + "test_loss", record.test_loss, expected.test_loss, [o.test_loss for o in own], 1.0)
        ties = _undecided(exact.logits, experiment.run.dtype) if record.round == len(history.records) else 2
        samples = len(exact.logits)
        wrong = round(abs(record.test_accuracy - expected.test_accuracy) * samples)
        if wrong > ties:
            judge_distance(
                where + "test_accuracy", wrong, 0.5, f"{record.test_accuracy:g}, expected {expected.test_accuracy:g}"
            )
        for name, (value, scale) in expected.measures.items():
            found = _measure(record, name)
            if found is not None:
                rounding = unit * (math.sqrt(scale) if name == "drift.dispersion" else 1.0) * (name in OF_UPDATES)
                rounding = CONTROL * scale if plain and name == "algorithm.distance" else rounding
                check(where + name, found, value, [o.measures[name][0] for o in own], scale, rounding)

    _check_saved_model(experiment, history, verdict)
    return verdict


OF_UPDATES = ("update_norm", "drift.norm", "drift.mean_norm", "drift.dispersion")
"""Measures of differences of weights."""


def _undecided(logits: Tensor, dtype: str) -> int:
    """Of how many samples the two best classes are too near to tell apart in that type."""
    first, second = logits.topk(2, dim=1).values.unbind(1)
    scale = logits.abs().max().item()
    return int((first - second < (1e-4 if dtype == "float32" else 1e-10) * scale).sum())


def _measure(record: RoundRecord, name: str) -> float | None:
    found: object = record
    for part in name.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, float) else None


def trained(experiment: Experiment, history: History) -> Tensor:
    """The trainable parameters of the saved model as one vector."""
    weights = history.weights
    module = _module(experiment, history)
    return torch.cat([weights[name].reshape(-1) for name, p in module.named_parameters() if p.requires_grad])


def server_vectors(history: History) -> dict[str, Tensor]:
    (file,) = (history.directory / "checkpoint").glob("server-round-*.safetensors")
    return load_file(file)


def _module(experiment: Experiment, history: History) -> torch.nn.Module:
    problem = shared(experiment, getattr(torch, experiment.run.dtype))
    return problem.module


def _check_saved_model(experiment: Experiment, history: History, verdict: Verdict) -> None:
    """The saved state_dict loads, leaves alone what is not trained, and scores what the summary says."""
    problem = shared(experiment, getattr(torch, experiment.run.dtype))
    initial = {name: tensor.clone() for name, tensor in problem.module.state_dict().items()}
    trainable = {id(p) for p in problem.module.parameters() if p.requires_grad}
    weights = history.weights
    names = {n for n, p in problem.module.named_parameters(remove_duplicate=False) if id(p) in trainable}
    for name in initial.keys() - names:
        if not torch.equal(weights[name], initial[name]):
            verdict.status = "disagrees"
            verdict.complaints.append(f"{name} is not trained, and has changed")
    problem.module.load_state_dict(weights)
    problem.module.eval()
    with torch.no_grad():
        logits = problem.module(problem.test[0])
    loss = torch.nn.functional.cross_entropy(logits, problem.test[1]).item()
    told = history.summary.final.test_loss
    if abs(loss - told) > (1e-9 if experiment.run.dtype == "float64" else 1e-4) * max(1.0, abs(loss)):
        verdict.status = "disagrees"
        verdict.complaints.append(f"the saved model's test loss in eval mode is {loss:.10g}, reported is {told:.10g}")
