"""Figures are images in a notebook, each once, whether or not pyplot is loaded."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import nbclient
import nbformat

import fedopt

LOAD = """
import fedopt
first, second = fedopt.load("fedavg"), fedopt.load("scaffold")
"""

CELLS = (
    LOAD,
    "first.plot()",
    'fedopt.compare([first, second]).figure("accuracy")',
    "import matplotlib.pyplot as plt",
    "first.plot()",
    'fedopt.compare([first, second]).figure("partition-1")',
)


def outputs(folder: Path) -> list[list[dict[str, Any]]]:
    """What each cell displays, by its type."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    client = nbclient.NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    return [[output.get("data", output) for output in cell.outputs] for cell in notebook.cells]


def test_a_figure_in_the_last_line_of_a_cell_is_one_image(tmp_path: Path) -> None:
    for name in ("fedavg", "scaffold"):
        experiment = fedopt.Experiment(algorithm={"name": name}, data={"clients": 4}, run={"rounds": 2, "workers": 1})
        fedopt.run(experiment, tmp_path / name)
    shown = outputs(tmp_path)
    assert [len(of_cell) for of_cell in shown] == [0, 1, 1, 0, 1, 1]
    for (output,) in (of_cell for of_cell in shown if of_cell):
        assert base64.b64decode(output["image/png"]).startswith(b"\x89PNG")
        assert "text/html" not in output
