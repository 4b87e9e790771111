"""Many clients fit: what a client keeps is one vector, what the server sums is two."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import resource, sys, tempfile
import fedopt

experiment = fedopt.Experiment(
    data={"name": "synthetic", "clients": 1000},
    model={"name": "mlp", "hidden": [700, 220]},
    algorithm={"name": "scaffold"},
    local={"steps": 2, "batch_size": 10},
    run={"rounds": 2, "participation": 1.0, "eval_every": 2},
)
with tempfile.TemporaryDirectory() as folder:
    history = fedopt.run(experiment, folder + "/run")
    parameters = sum(tensor.numel() for tensor in history.weights.values())
print(parameters, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
def test_a_thousand_scaffold_clients_of_200k_parameters_fit_in_3_gib() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    parameters, gib = done.stdout.split()
    print(f"{parameters} parameters, {float(gib):.2f} GiB at most")
    assert int(parameters) > 195_000
    assert float(gib) < 3.0
