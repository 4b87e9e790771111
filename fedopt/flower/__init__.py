"""fedopt's algorithms inside any Flower App.

    from fedopt.flower import Scaffold                           # in server_app.py: a Flower Strategy
    strategy = Scaffold(model, fraction_train=0.5, server_lr=1.0)
    strategy.start(grid, ArrayRecord(model.state_dict()), num_rounds=10)

    from fedopt.flower import hello, local_work                  # in client_app.py: around your own training loop
    local = local_work(msg, context, model, samples=len(data))
    optimizer = local.attach(torch.optim.SGD(model.parameters(), lr=0.05))

Every algorithm that `fedopt list algorithms` prints is a strategy here, under the name of its class; one that does more
in a step than correct its gradient is refused with a sentence. This folder is the one place in fedopt/ that imports
Flower, and nothing else in fedopt/ imports this folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fedopt.algorithms import ALGORITHMS
from fedopt.imports import load_attribute

if TYPE_CHECKING:
    from fedopt.flower.drift import MeasureDrift as MeasureDrift
    from fedopt.flower.full_pass import FullPass as FullPass
    from fedopt.flower.grid import InProcessGrid as InProcessGrid
    from fedopt.flower.local import Local as Local
    from fedopt.flower.local import load_model as load_model
    from fedopt.flower.local import local_work as local_work
    from fedopt.flower.ready import Training as Training
    from fedopt.flower.ready import client_app as client_app
    from fedopt.flower.roster import hello as hello
    from fedopt.flower.strategy import AlgorithmStrategy as AlgorithmStrategy

_PLACES = {
    "AlgorithmStrategy": "fedopt.flower.strategy:AlgorithmStrategy",
    "FullPass": "fedopt.flower.full_pass:FullPass",
    "InProcessGrid": "fedopt.flower.grid:InProcessGrid",
    "Local": "fedopt.flower.local:Local",
    "MeasureDrift": "fedopt.flower.drift:MeasureDrift",
    "Training": "fedopt.flower.ready:Training",
    "client_app": "fedopt.flower.ready:client_app",
    "hello": "fedopt.flower.roster:hello",
    "load_model": "fedopt.flower.local:load_model",
    "local_work": "fedopt.flower.local:local_work",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return load_attribute(_PLACES[name])
    algorithms = {place.rpartition(":")[2]: known for known, place in ALGORITHMS.items()}
    if name not in algorithms:
        raise AttributeError(f"module 'fedopt.flower' has no attribute {name!r}; its strategies are {set(algorithms)}")
    from fedopt.flower.strategy import strategy_of

    return strategy_of(algorithms[name])


def __dir__() -> list[str]:
    return sorted({*_PLACES, *(place.rpartition(":")[2] for place in ALGORITHMS.values())})
