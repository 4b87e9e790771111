"""A Flower Strategy over any of fedopt's algorithms.

The round is that of `fedopt run`: clients are chosen by seed and round, updates are examined before they count, sums
are exact whatever the order of arrival, and the server's message says which of the client's updates were used.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Mapping
from logging import getLogger
from typing import Any, ClassVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid, strategy
from torch import nn

from fedopt.algorithms import ALGORITHMS
from fedopt.algorithms.base import Algorithm, own_loop_refusal
from fedopt.errors import InvalidExperiment, RunStopped
from fedopt.flower.arrays import Entries, as_record
from fedopt.flower.messages import DOWN, ORDER, Order
from fedopt.flower.roster import Roster
from fedopt.flower.rounds import Rounds, too_few
from fedopt.registry import nearest
from fedopt.round.gathering.base import Gathering
from fedopt.round.gathering.mean import Mean
from fedopt.round.method import Method
from fedopt.round.selection import select_cohort
from fedopt.round.state import ServerState
from fedopt.seeding import Purpose, stream

log = getLogger("flwr")


NOT_USED = {
    "weighted_by_key": 'set weighting="samples" or "uniform" of the algorithm',
    "train_metrics_aggr_fn": "clients' metrics are averaged as their updates are",
}
"""Parameters of Flower's FedAvg that would have no effect here, each with what to do instead."""

OF_FLOWER = [name for name in inspect.signature(strategy.FedAvg).parameters if name not in NOT_USED]


class AlgorithmStrategy(strategy.FedAvg):
    """Federated training by one of fedopt's algorithms, for `strategy.start(grid, initial_arrays, ...)`.

    Parameters
    ----------
    algorithm : Algorithm
        The algorithm with its settings, for example `fedopt.algorithms.scaffold.Scaffold(server_lr=0.5)`.
    model : Optional[nn.Module] (default: None)
        The module whose state_dict the run starts from. It says which arrays are trained parameters: those with
        requires_grad. Without it every array of floating-point numbers counts as one, which is right for a model
        without frozen parameters, BatchNorm and tied weights; a client whose model says otherwise refuses.
    seed : int (default: 0)
        Chooses the clients of each round and their minibatches (`Local.batches`).
    min_replies : int (default: 1)
        With fewer usable updates in a round, the run ends with RunStopped.
    gathering : Optional[Gathering] (default: None)
        How updates are combined; the weighted mean by default.
    hello_timeout : float (default: 600)
        Seconds that each node has for the first message.
    **flower : Any
        The parameters of Flower's FedAvg: fraction_train, min_train_nodes, min_available_nodes, fraction_evaluate,
        evaluate_metrics_aggr_fn and so on. All nodes that are connected in the first round are the clients of the run:
        set min_available_nodes to their number. How clients count in training is the algorithm's `weighting`.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        model: nn.Module | None = None,
        *,
        seed: int = 0,
        min_replies: int = 1,
        gathering: Gathering | None = None,
        hello_timeout: float = 600.0,
        **flower: Any,
    ) -> None:
        for name in flower:
            if name in NOT_USED:
                raise InvalidExperiment(f"{name} is not used by fedopt's strategies; {NOT_USED[name]}")
            if name not in OF_FLOWER:
                raise InvalidExperiment(f"unknown parameter {name}; {nearest(name, [*self._own_names(), *OF_FLOWER])}")
        super().__init__(**flower)
        if not algorithm.fits_own_loops:
            raise InvalidExperiment(own_loop_refusal(algorithm))
        self.algorithm, self.seed, self.min_replies = algorithm, seed, min_replies
        self._entries = None if model is None else Entries.of(model)
        self._gathering = gathering or Mean()
        self._hello_timeout = hello_timeout
        self._run: Rounds | None = None

    @property
    def state(self) -> ServerState:
        """What the server knows after the last round: x, the algorithm's own vectors, the accepted rounds."""
        if self._run is None:
            raise RunStopped("the strategy has no state before its first round")
        return self._run.state

    @classmethod
    def _own_names(cls) -> list[str]:
        """Parameters beside Flower's, for the message about a misspelled one."""
        names = inspect.signature(AlgorithmStrategy.__init__).parameters
        return [name for name in names if name not in ("self", "flower")]

    def summary(self) -> None:
        settings = self.algorithm.model_dump(exclude={"name"})
        log.info("\t├──> fedopt algorithm: %s %s", self.algorithm.name, settings)
        super().summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The orders of a round. The first one begins a new run: the strategy then asks every node for its samples."""
        if server_round == 1 or self._run is None:
            self._run = self._begin(arrays, grid)
        run = self._run
        down = run.start(server_round, arrays)
        nodes = run.roster.connected(grid)
        size = min(len(run.roster.samples), max(self._count(self.fraction_train), self.min_train_nodes))
        cohort = select_cohort(len(run.roster.samples), size, self.seed, server_round)
        absent = [client for client in cohort if client not in nodes]
        log.info("configure_train: Sampled %d nodes (out of %d)", size, len(nodes))
        if absent:
            log.warning("clients %s were chosen but are not connected", absent)
        config["server-round"] = server_round
        shared: dict[str, ArrayRecord | ConfigRecord] = {self.arrayrecord_key: arrays, self.configrecord_key: config}
        if down:
            shared[DOWN] = as_record(down)
        return [
            self._message(run, client, nodes[client], MessageType.TRAIN, shared) for client in cohort if client in nodes
        ]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The next model, and means of what the clients measured. RunStopped if too few updates can be used."""
        run = self._run
        if run is None:
            raise RunStopped("aggregate_train came before configure_train; use strategy.start")
        gathered = run.gather(replies)
        for client, reason in sorted(gathered.left_out.items()):
            log.warning("\t> client %d is left out of round %d: %s", client, server_round, reason)
        log.info("aggregate_train: Received %d results and %d failures", len(gathered.used), len(gathered.left_out))
        if len(gathered.used) < self.min_replies:
            raise too_few(server_round, self.min_replies, gathered)
        return run.advance(gathered)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The model of the round for a sample of the clients, and for each the state that counts."""
        run = self._run
        if self.fraction_evaluate == 0.0 or run is None:
            return []
        nodes = run.roster.connected(grid)
        size = min(len(nodes), max(self._count(self.fraction_evaluate), self.min_evaluate_nodes))
        draw = stream(self.seed, Purpose.COHORT, server_round, 1)
        chosen = sorted(draw.choice(sorted(nodes), size=size, replace=False).tolist())
        config["server-round"] = server_round
        shared: dict[str, ArrayRecord | ConfigRecord] = {self.arrayrecord_key: arrays, self.configrecord_key: config}
        return [self._message(run, client, nodes[client], MessageType.EVALUATE, shared) for client in chosen]

    def _begin(self, arrays: ArrayRecord, grid: Grid) -> Rounds:
        entries = self._entries or Entries.in_record(arrays)
        entries.check(arrays)
        roster = Roster(self._hello_timeout)
        roster.gather(grid, max(self.min_available_nodes, self.min_train_nodes))
        method = Method(self.algorithm, gathering=self._gathering)
        return Rounds(method, self.seed, entries, roster, entries.read(arrays))

    def _count(self, fraction: float) -> int:
        """As `run.participation` counts."""
        assert self._run is not None
        return max(1, round(fraction * len(self._run.roster.samples)))

    def _message(
        self, run: Rounds, client: int, node: int, kind: str, shared: Mapping[str, ArrayRecord | ConfigRecord]
    ) -> Message:
        order = Order(
            round=run.number,
            client=client,
            accepted=run.state.accepted.get(client),
            seed=self.seed,
            algorithm=self.algorithm.model_dump_json(),
            trained=run.entries.layout.names,
        )
        return Message(RecordDict({**shared, ORDER: order.record()}), dst_node_id=node, message_type=kind)


class NamedStrategy(AlgorithmStrategy):
    """A strategy of one algorithm, whose settings are keywords beside those of `AlgorithmStrategy`."""

    kind: ClassVar[type[Algorithm]]

    @classmethod
    def _own_names(cls) -> list[str]:
        return [*cls.kind.model_fields, *(name for name in super()._own_names() if name != "algorithm")]

    def __init__(self, model: nn.Module | None = None, **options: Any) -> None:
        own = {key: options.pop(key) for key in list(options) if key in self.kind.model_fields}
        super().__init__(self.kind.remade(own), model, **options)


@functools.cache
def strategy_of(name: str) -> type[NamedStrategy]:
    """The strategy class of the algorithm that the registry has under this name."""
    kind = ALGORITHMS.resolve(name)
    about = f"{kind.__name__} as a Flower Strategy: its settings are keywords beside those of AlgorithmStrategy."
    return type(kind.__name__, (NamedStrategy,), {"kind": kind, "__doc__": about, "__module__": __name__})
