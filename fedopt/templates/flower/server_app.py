"""The server: one of fedopt's algorithms as the strategy, with the measures of client drift."""

from __future__ import annotations

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from safetensors.torch import save_file
from task import accuracy, load_digits, make_model

import fedopt.flower
from fedopt.flower import MeasureDrift
from fedopt.seeding import Purpose, isolated

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    seed = int(config["seed"])
    with isolated(seed, Purpose.WEIGHTS):  # the initial weights of `fedopt run` with this seed
        model = make_model()

    make_strategy = getattr(fedopt.flower, str(config["algorithm"]))
    strategy = make_strategy(
        model, fraction_train=float(config["fraction-train"]), fraction_evaluate=0.0, min_available_nodes=2, seed=seed
    )

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        model.load_state_dict(arrays.to_torch_state_dict())
        _, test = load_digits(len(list(grid.get_node_ids())), seed)
        return MetricRecord({"test_accuracy": accuracy(model, test)})

    result = MeasureDrift(strategy, model).start(
        grid, ArrayRecord(model.state_dict()), num_rounds=int(config["rounds"]), evaluate_fn=evaluate
    )
    if config["out"]:
        save_file(result.arrays.to_torch_state_dict(), str(config["out"]))
