"""What a run's clients would do in a next round: the run's own code, state and random streams, without the server's
step.

The bits are those of `--resume` with one round more, on the same kind of machine, wherever lanes change no bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from clients.lanes.training import Result
from fedopt.channel.channel import Channel
from fedopt.device import threads
from fedopt.errors import BrokenRun, DataUnavailable, InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.round.federation import WorkOrder
from fedopt.round.loop import Rounds, Rules
from fedopt.round.selection import Terms
from fedopt.round.state import ServerState
from fedopt.runs.checkpoint import Checkpoints
from fedopt.runs.history import History
from fedopt.runs.past_runs import read_run
from fedopt.runs.rate_factors import factors_after
from fedopt.runs.setup import Setup
from simulations.embedded import prepare
from simulations.virtual import VirtualFederation


@dataclass(frozen=True)
class ClientWork:
    """What a client made of the broadcast of a round."""

    round: int
    model: Tensor
    """Where its steps have led, [P + S] in the run's dtype."""
    result: Result
    """What it would send, before the channel, and its new state."""


class NextRound:
    """The virtual clients of a run, before a round that is not played."""

    def __init__(self, history: History, setup: Setup) -> None:
        """`setup` is that of the run's experiment. InvalidExperiment if the run has no clients that train."""
        experiment = history.experiment
        if experiment.algorithm.pools_data:
            raise InvalidExperiment(f"{experiment.algorithm.name} trains on all data in one place and has no clients")
        self._history, self._experiment = history, experiment
        self._method = experiment.method.on(setup.problem.task.module)
        self._federation = _alone(experiment, setup)
        sizes = None if (known := read_run(history.directory).partition) is None else known.sizes
        if sizes is not None and sizes != list(self._federation.samples):
            raise DataUnavailable(
                f"{history.directory}: its clients had data of their own, not the parts that its experiment.toml makes"
            )
        self._before = ServerState.initial(self._federation.like, self._method)

    def after_the_last(self, client: int) -> ClientWork:
        """In the round after the run's last checkpoint. BrokenRun if that lacks something."""
        return self._work(self._last, client)

    def after(self, round_: int, x: Tensor, client: int) -> ClientWork:
        """In the round after this one, which led to the model x [P + S]. InvalidExperiment unless the model is all that
        a round starts from; before the first round everything is known."""
        if round_ > 0:
            own = Channel.without_state(self._method.client_state(x))
            needed = [*own, *self._method.sends_down(self._before.server)]
            if needed:
                raise InvalidExperiment(
                    f"a round of {self._experiment.algorithm.name} starts from more than the model ("
                    f"{', '.join(sorted(set(needed)))}), which a run has after its last round alone"
                )
        return self._work(ServerState(round_, x, self._before.server), client)

    @cached_property
    def _last(self) -> ServerState:
        """That of the checkpoint, with the clients' states, which are loaded once."""
        directory = self._history.directory
        try:
            return Checkpoints(directory / "checkpoint", self._experiment).load(self._before, self._federation)[0]
        except BrokenRun as error:
            raise BrokenRun(f"a next round of {directory} cannot be computed: {error}") from error

    def _work(self, state: ServerState, client: int) -> ClientWork:
        records = self._history.records[: state.round]
        rules = Rules(Terms.all_of(self._experiment.cohort_size), self._experiment.run.seed)
        rounds = Rounds(self._method, self._federation, rules, factors=lambda: factors_after(self._experiment, records))
        order = WorkOrder(client, state.accepted.get(client))
        with threads(self._experiment.run.threads):
            result, model = self._federation.led_to(rounds.broadcast(state), order)
        return ClientWork(state.round + 1, model, result)


def _alone(experiment: Experiment, setup: Setup) -> VirtualFederation:
    """The run's clients in this process, on one lane."""
    here = {"device": "cpu", "workers": 1, "lanes": 1, "cuda_graphs": False}
    prepared = prepare(experiment.replace(run=here, metrics={"divergence": False}), setup)
    assert isinstance(prepared.federation, VirtualFederation)
    return prepared.federation
