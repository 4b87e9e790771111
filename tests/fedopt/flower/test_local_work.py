"""`local_work` and the strategies against plain transcriptions, and what they refuse."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from flwr.app import ArrayRecord, Context, Message
from flwr.clientapp import ClientApp
from torch import Tensor, nn
from torch.nn import functional as F

import fedopt.flower
from fedopt.algorithms.fedavg import FedAvg
from fedopt.errors import FedoptError, InvalidExperiment, RunStopped
from fedopt.flower import AlgorithmStrategy, InProcessGrid, hello, local_work
from fedopt.flower.client_state import PREFIX
from fedopt.round.selection import select_cohort
from tests.fedopt.flower.apps import Samples
from tests.fedopt.flower.own import OwnModels
from tests.fedopt.flower.small_apps import LR, STEPS, Normalized, linear, play, sgd, some_data, training


def gradient(model: nn.Module, vector: Tensor, x: Tensor, y: Tensor) -> Tensor:
    model = copy.deepcopy(model)
    nn.utils.vector_to_parameters(vector, model.parameters())
    return nn.utils.parameters_to_vector(torch.autograd.grad(F.cross_entropy(model(x), y), list(model.parameters())))


def scaffold_of_the_paper(
    data: list[Samples], cohorts: list[list[int]], lost: set[tuple[int, int]]
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Algorithm 1 of arXiv:1910.06378 with option II and weights p_i = n_i / n: x, c and all c_i.

    What a client did in a (client, round) of `lost` never reached the server and leaves nothing behind.
    """
    model, n = linear(), sum(len(y) for _, y in data)
    p = [len(y) / n for _, y in data]
    x = nn.utils.parameters_to_vector(model.parameters()).detach()
    c, c_i = torch.zeros_like(x), [torch.zeros_like(x) for _ in data]
    for round_, cohort in enumerate(cohorts, start=1):
        moved: dict[int, Tensor] = {}
        changed: dict[int, Tensor] = {}
        for i in cohort:
            y_i = x.clone()
            for _ in range(STEPS[i]):
                y_i = y_i - LR * (gradient(model, y_i, *data[i]) - c_i[i] + c)
            if (i, round_) not in lost:
                moved[i] = y_i - x
                changed[i] = c_i[i] - c + (x - y_i) / (STEPS[i] * LR)
        c = c + sum((p[i] * (new - c_i[i]) for i, new in changed.items()), torch.zeros_like(c))
        x = x + sum((p[i] * d for i, d in moved.items()), torch.zeros_like(x)) / sum(p[i] for i in moved)
        for i, new in changed.items():
            c_i[i] = new
    return x, c, c_i


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_scaffold_is_the_papers_with_unequal_steps_and_lost_updates(fraction: float) -> None:
    """Client 1 fails in rounds 2 and 5, after its work: the server never gets that update."""
    lost = {(client, round_) for client in (1, 2) for round_ in (2, 5)}

    def fail(client: int, round_: int) -> None:
        if (client, round_) in lost:
            raise RuntimeError("the network is down")

    work = training(before_reply=fail)
    strategy = fedopt.flower.Scaffold(linear(), fraction_train=fraction, seed=4)
    grid = InProcessGrid(work.app(), 4)
    result = strategy.start(grid, ArrayRecord(linear().state_dict()), num_rounds=7)

    cohorts = [select_cohort(4, round(4 * fraction), 4, number) for number in range(1, 8)]
    assert set(work.seen) == {(number, i) for number, cohort in enumerate(cohorts, 1) for i in cohort}
    assert {(client, number) for number, client in work.seen} & lost
    x, c, c_i = scaffold_of_the_paper(work.clients, cohorts, lost)
    found = nn.utils.parameters_to_vector(list(result.arrays.to_torch_state_dict().values()))
    torch.testing.assert_close(found, x, rtol=0, atol=1e-13)
    state = strategy.state
    torch.testing.assert_close(state.server["c"], c, rtol=0, atol=1e-13)
    for client, context in enumerate(grid.contexts.values()):
        round_ = state.accepted.get(client)
        if round_ is None:
            assert not c_i[client].any()
            continue
        kept = context.state.array_records[f"{PREFIX}{round_}"]["c_i"].numpy()
        torch.testing.assert_close(torch.tensor(kept), c_i[client], rtol=0, atol=1e-13)


def test_the_same_bits_whatever_the_node_ids() -> None:
    def weights(node_of: Callable[[int], int]) -> dict[str, Tensor]:
        grid = InProcessGrid(training().app(), 4)
        grid.contexts = {node_of(number): context for number, context in enumerate(grid.contexts.values())}
        strategy = fedopt.flower.Scaffold(linear(), fraction_train=0.5)
        result = strategy.start(grid, ArrayRecord(linear().state_dict()), num_rounds=4)
        return dict(result.arrays.to_torch_state_dict())

    rising, falling = weights(lambda number: 10 + number), weights(lambda number: 99 - number)
    assert all(torch.equal(rising[name], falling[name]) for name in rising)


def test_buffers_are_averaged_frozen_parameters_stay_and_controls_know_neither() -> None:
    work = training(Normalized)
    found = play(fedopt.flower.Scaffold(Normalized()), work.app(), Normalized())

    # Controls are zero in the first round: each client is plain SGD, done here alone.
    total = sum(len(y) for _, y in work.clients)
    expected = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in Normalized().state_dict().items()}
    for client, (x, y) in enumerate(work.clients):
        model = Normalized()
        optimizer = sgd(model)
        for _ in range(STEPS[client]):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        for name, value in model.state_dict().items():
            expected[name] += len(y) / total * value
    assert found.pop("norm.num_batches_tracked") == max(STEPS)
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-13)
    assert torch.equal(found["frozen.weight"], Normalized().frozen.weight)


def test_a_strategy_without_the_model_does_not_train_buffers_silently() -> None:
    with pytest.raises(RunStopped, match=r"disagree on the trained parameters \(frozen.bias\); give the strategy the"):
        play(fedopt.flower.Scaffold(), training(Normalized).app(), Normalized())


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first = nn.Linear(5, 5, bias=False)
        self.second = nn.Linear(5, 5, bias=False)
        self.second.weight = self.first.weight
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x))[:, :3]
        return out


def test_tied_weights_stay_tied() -> None:
    found = play(fedopt.flower.FedAvg(Tied()), training(Tied).app(), Tied(), rounds=2)
    assert torch.equal(found["first.weight"], found["second.weight"])
    assert not torch.equal(found["first.weight"], Tied().first.weight)


def test_an_update_that_is_not_finite_is_refused_and_its_state_dropped() -> None:
    data = some_data()
    data[2] = (data[2][0] * float("nan"), data[2][1])
    strategy = fedopt.flower.Scaffold(linear())
    found = play(strategy, training(data=data).app(), linear(), rounds=2)
    assert all(value.isfinite().all() for value in found.values())
    assert strategy.state.accepted == {0: 2, 1: 2, 3: 2}


def test_a_node_that_lost_its_state_takes_no_part_any_more() -> None:
    def forget(client: int, round_: int) -> None:
        if client == 0 and round_ == 2:
            grid.contexts[1000].state.clear()

    grid = InProcessGrid(training(before_reply=forget).app(), 4)
    strategy = fedopt.flower.Scaffold(linear())
    strategy.start(grid, ArrayRecord(linear().state_dict()), num_rounds=4)
    assert strategy.state.accepted == {0: 2, 1: 4, 2: 4, 3: 4}


class Halved(FedAvg):
    """Sends half of its displacement."""

    def finish(self, work: Any) -> Any:
        finished = super().finish(work)
        return type(finished)(up={"dx": finished.up["dx"] / 2})


def test_an_algorithm_of_the_apps_own() -> None:
    x = linear().state_dict()["weight"]
    half = play(AlgorithmStrategy(Halved()), training(algorithms=[Halved]).app(), linear())
    whole = play(fedopt.flower.FedAvg(), training().app(), linear())
    torch.testing.assert_close(half["weight"] - x, (whole["weight"] - x) / 2, rtol=0, atol=1e-15)
    with pytest.raises(
        RunStopped, match=r"give its class to the client, too: local_work\(..., algorithms=\[Halved\]\)"
    ):
        play(AlgorithmStrategy(Halved()), training().app(), linear())


def two_rates(model: Any, local: Any) -> None:
    groups = [{"params": [model.weight], "lr": 0.1}, {"params": [model.bias], "lr": 0.2}]
    local.attach(torch.optim.SGD(groups)).step()


def only_the_weight(model: Any, local: Any) -> None:
    local.attach(torch.optim.SGD([model.weight], lr=0.1))


def twice(model: nn.Module, local: Any) -> None:
    local.attach(sgd(model))
    local.attach(sgd(model))


def closure(model: nn.Module, local: Any) -> None:
    local.attach(sgd(model)).step(lambda: torch.zeros(()))


def not_attached(model: nn.Module, local: Any) -> None:
    sgd(model).step()
    local.reply()


@pytest.mark.parametrize(
    ("use", "sentence"),
    [
        (two_rates, r"the learning rates \[0.1, 0.2\]"),
        (only_the_weight, "does not hold the parameter bias"),
        (twice, "an optimizer is attached already"),
        (closure, r"step\(closure\) computes gradients that cannot be corrected"),
        (not_attached, "no step was taken by an attached optimizer"),
    ],
)
def test_what_cannot_be_corrected_is_refused(use: Callable[[nn.Module, Any], None], sentence: str) -> None:
    app = ClientApp()

    @app.query("hello")
    def _hello(msg: Message, context: Context) -> Message:
        return hello(msg, context, samples=3)

    @app.train()
    def _train(msg: Message, context: Context) -> Message:
        model = linear()
        local = local_work(msg, context, model, samples=3)
        use(model, local)
        return local.reply()

    with pytest.raises(RunStopped, match=sentence):
        play(fedopt.flower.Scaffold(), app, linear(), nodes=2)


def test_an_app_without_hello_is_told_what_it_lacks() -> None:
    with pytest.raises(RunStopped, match=r"4 of 4 nodes do not answer .*@app.query\(\"hello\"\)"):
        play(fedopt.flower.FedAvg(), ClientApp(), linear())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"server_rate": 1.0}, "unknown parameter server_rate; did you mean server_lr"),
        ({"fraction_trian": 1.0}, "unknown parameter fraction_trian; did you mean fraction_train"),
        ({"server_lr": -1.0}, "server_lr: must be greater than 0, not -1"),
        ({"weighted_by_key": "n"}, "weighted_by_key is not used by fedopt's strategies; set weighting"),
    ],
)
def test_a_misspelled_parameter_is_named(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidExperiment, match=sentence):
        fedopt.flower.Scaffold(**options)


def test_every_algorithm_is_a_strategy_under_its_own_name() -> None:
    from fedopt.algorithms import ALGORITHMS

    for name in ALGORITHMS:
        kind = ALGORITHMS.resolve(name)
        assert getattr(fedopt.flower, kind.__name__).kind is kind
    with pytest.raises(AttributeError, match="its strategies are"):
        _ = fedopt.flower.NoSuchThing
    assert issubclass(RunStopped, FedoptError)


@pytest.mark.parametrize("name", ["Mime", "FedNova", "FedCM", "FedSAM"])
def test_what_a_loop_of_ones_own_does_not_support_is_refused(name: str) -> None:
    """FedSAM around a loop that takes no step of SAM would be FedAvg under another name."""
    with pytest.raises(InvalidExperiment, match=f"^{name.lower()} does more in a step than correct its gradient"):
        getattr(fedopt.flower, name)(linear())


def test_the_models_are_evaluated_on_the_clients() -> None:
    result = fedopt.flower.FedAvg(linear(), fraction_evaluate=1.0).start(
        InProcessGrid(training().app(), 4), ArrayRecord(linear().state_dict()), num_rounds=2
    )
    model = linear()
    model.load_state_dict(result.arrays.to_torch_state_dict())
    right = sum(int((model(x).argmax(1) == y).sum()) for x, y in some_data())
    total = sum(len(y) for _, y in some_data())
    assert result.evaluate_metrics_clientapp[2]["accuracy"] == pytest.approx(right / total)


def test_personal_models_are_evaluated_where_the_algorithm_has_them() -> None:
    """After one round client i uses x + (y_i - x_0), with y_i from plain SGD."""
    work = training(algorithms=[OwnModels])
    strategy = AlgorithmStrategy(OwnModels(), linear(), fraction_evaluate=1.0)
    result = strategy.start(InProcessGrid(work.app(), 4), ArrayRecord(linear().state_dict()), num_rounds=1)
    right = 0
    for client, (x, y) in enumerate(work.clients):
        model = linear()
        optimizer = sgd(model)
        for _ in range(STEPS[client]):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        own = {
            name: result.arrays.to_torch_state_dict()[name] + value - linear().state_dict()[name]
            for name, value in model.state_dict().items()
        }
        model.load_state_dict(own)
        right += int((model(x).argmax(1) == y).sum())
    total = sum(len(y) for _, y in work.clients)
    assert result.evaluate_metrics_clientapp[1]["accuracy"] == pytest.approx(right / total)


def test_a_client_may_come_back_at_another_node_and_a_stranger_takes_no_part() -> None:
    def weights(moves: bool) -> tuple[dict[str, Tensor], set[int]]:
        def move(client: int, round_: int) -> None:
            if moves and (client, round_) == (3, 2):
                grid.contexts[2001] = grid.contexts.pop(1001)  # with its state
                grid.contexts[2002] = copy.deepcopy(grid.contexts[1002])
                grid.contexts[2002].node_config["partition-id"] = 7

        work = training(data=some_data(8), before_reply=move, steps_of=lambda client: STEPS[client % 4])
        grid = InProcessGrid(work.app(), 4)
        strategy = fedopt.flower.Scaffold(linear(), fraction_evaluate=0.0)
        result = strategy.start(grid, ArrayRecord(linear().state_dict()), num_rounds=4)
        return dict(result.arrays.to_torch_state_dict()), {client for _, client in work.seen}

    moved, clients = weights(True)
    stayed, _ = weights(False)
    assert clients == {0, 1, 2, 3}
    assert all(torch.equal(moved[name], stayed[name]) for name in stayed)
