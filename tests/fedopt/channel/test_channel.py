"""Channel stages: what arrives, what is kept, what is refused; in a simulation as in a deployment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import fedopt
from fedopt.algorithms.fedavg import FedAvg
from fedopt.channel.base import BadPayload, ChannelKey, Payload, Stage
from fedopt.channel.channel import Channel, SenderKey
from fedopt.errors import InvalidExperiment
from fedopt.experiment.experiment import Experiment
from fedopt.experiment.file import to_toml
from fedopt.vectors.layout import Vectors
from fedopt.vectors.totals import ChangedTotals, Totals
from tests.outside.stage import EightBits

LIKE = {"dx": torch.zeros(50, dtype=torch.float64), "dc": torch.zeros(50, dtype=torch.float64)}


class Negated(Stage):
    """Sends the negative of every array."""

    def send(self, payload: Payload, state: Vectors, key: ChannelKey) -> tuple[Payload, Vectors]:
        return {name: -array for name, array in payload.items()}, {}

    def receive(self, payload: Payload, like: Vectors) -> Payload:
        return {name: -array for name, array in payload.items()}


class Doubled(Negated):
    """Doubles the mean of dx on the server."""

    def release(self, totals: Totals, key: ChannelKey) -> Totals:
        return ChangedTotals(totals, {"dx": 2 * totals.mean("dx")})


class First(Negated):
    def why_not_after(self, earlier: Any) -> str | None:
        return "it must come first" if earlier else None


def test_error_feedback_loses_nothing() -> None:
    """The sum of what arrived plus the residual is the sum of what was to be sent."""
    channel, rng = Channel((EightBits(),)), np.random.default_rng(0)
    state, arrived, wanted = channel.client_state(LIKE), torch.zeros(50).double(), torch.zeros(50).double()
    for round_ in range(1, 30):
        up = {name: torch.from_numpy(rng.standard_normal(50)) for name in LIKE}
        payload, state = channel.send(up, state, SenderKey(0, round_, 3))
        assert payload["dx.levels"].dtype == torch.int8
        arrived += channel.receive(payload, LIKE)["dx"]
        wanted += up["dx"]
    assert torch.allclose(arrived + state["channel.0.dx"], wanted, rtol=0, atol=1e-12)
    assert state["channel.0.dx"].abs().max() < 0.1


def test_the_server_undoes_the_stages_from_the_last_to_the_first() -> None:
    channel = Channel((Negated(), EightBits(), Negated()))
    up = {name: torch.linspace(-1, 1, 50).double() for name in LIKE}
    payload, state = channel.send(up, channel.client_state(LIKE), SenderKey(0, 1, 0))
    assert set(state) == {"channel.1.dx", "channel.1.dc"}
    received = channel.receive(payload, LIKE)
    assert torch.allclose(received["dx"] - state["channel.1.dx"], up["dx"], rtol=0, atol=1e-12)


def test_each_stage_round_and_client_draws_numbers_of_its_own() -> None:
    keys = [ChannelKey(0, 1, 0, 5), ChannelKey(0, 2, 0, 5), ChannelKey(0, 1, 1, 5), ChannelKey(0, 1, 0, 6)]
    draws = {float(key.stream().random()) for key in [*keys, ChannelKey(0, 1, 0)]}
    assert len(draws) == 5
    assert float(ChannelKey(0, 1, 0, 5).stream().random()) in draws


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"dx.levels": torch.zeros(50, dtype=torch.int8)},
        {f"{n}.{p}": torch.zeros(1) for n in ("dx", "dc") for p in ("levels", "scale")},
        {f"{n}.{p}": torch.zeros(50) for n in ("dx", "dc", "dz") for p in ("levels", "scale")},
    ],
)
def test_a_payload_that_the_stage_did_not_send_is_refused(payload: Payload) -> None:
    with pytest.raises(BadPayload):
        Channel((EightBits(),)).receive(payload, LIKE)


def test_what_a_stage_decodes_to_must_fit_the_model() -> None:
    for wrong in ({"dx": torch.zeros(49).double(), "dc": LIKE["dc"]}, {"dx": torch.zeros(50), "dc": LIKE["dc"]}, {}):
        with pytest.raises(BadPayload, match="decodes to"):
            Channel((Negated(),)).receive(wrong, LIKE)


def run(tmp_path: Any, stages: list[Any], **sections: Any) -> fedopt.History:
    experiment = Experiment(
        data={"clients": 4},
        run={"rounds": 2, "dtype": "float64", **sections},
        channel={"stages": stages},
        metrics={"drift_every": 0},
    )
    return fedopt.run(experiment, tmp_path)


def test_a_simulation_sends_through_the_stages_and_counts_what_travels(tmp_path: Any) -> None:
    plain = run(tmp_path / "plain", [])
    there_and_back = run(tmp_path / "negated", [Negated()])
    assert there_and_back.summary.weights_sha256 == plain.summary.weights_sha256
    small = run(tmp_path / "small", [EightBits()])
    assert small.summary.weights_sha256 != plain.summary.weights_sha256
    ratio = plain.records[0].bytes_up / small.records[0].bytes_up
    assert 7.5 < ratio < 8  # eight bytes become one, and a scale


def test_the_server_releases_what_it_gathered(tmp_path: Any) -> None:
    plain, doubled = run(tmp_path / "plain", [], workers=1), run(tmp_path / "doubled", [Doubled()], workers=1)
    first, second = plain.records[0], doubled.records[0]
    assert second.update_norm == pytest.approx(2 * first.update_norm, rel=1e-12)
    assert first.drift is not None
    assert second.drift == first.drift, "measures are of what the clients sent"


def test_the_section_says_what_is_wrong_and_is_written_back() -> None:
    experiment = Experiment(channel={"stages": ["tests.outside.stage:EightBits"]})
    assert isinstance(experiment.channel.stages[0], EightBits)
    assert 'name = "tests.outside.stage:EightBits"' in to_toml(experiment)
    with pytest.raises(InvalidExperiment, match=r"First cannot come in place 2: it must come first"):
        Experiment(channel={"stages": [Negated(), First()]})
    with pytest.raises(InvalidExperiment, match="a stage is a table with its name"):
        Experiment(channel={"stages": [{"bits": 8}]})
    with pytest.raises(InvalidExperiment, match="is no channel stage"):
        Experiment(channel={"stages": ["tests.outside.algorithm:Nudged"]})
    assert FedAvg().name == "fedavg"
