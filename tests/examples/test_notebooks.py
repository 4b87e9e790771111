"""The notebooks of examples/ run from top to bottom in a real kernel, and are stored without outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted(EXAMPLES.rglob("*.ipynb"))

Cells = dict[str, str]
"""What each code cell displays as HTML, else as text, by its source."""


def executed(name: str, folder: Path) -> Cells:
    """Runs the notebook with `folder` as its working directory; an error in a cell fails the test."""
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=500, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    return {cell.source: "\n".join(map(shown, cell.outputs)) for cell in notebook.cells if cell.cell_type == "code"}


def shown(output: Any) -> str:
    data = output.get("data", {})
    return str(data.get("text/html") or data.get("text/plain") or output.get("text", ""))


def of(cells: Cells, beginning: str) -> str:
    """What the first cell with this beginning displays."""
    return next(output for source, output in cells.items() if source.startswith(beginning))


def test_there_are_the_notebooks_that_the_documents_name() -> None:
    assert {"quickstart", "own-data", "own-algorithm"} <= {path.stem for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stored_without_outputs(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert code
    assert [cell["outputs"] for cell in code] == [[]] * len(code)
    assert {cell["execution_count"] for cell in code} == {None}
    nbformat.validate(nbformat.from_dict(notebook))


def test_the_quickstart_shows_progress_tables_and_figures(tmp_path: Path) -> None:
    cells = executed("quickstart", tmp_path)
    progress = of(cells, "fedavg = fedopt.run")
    assert "40 rounds in" in progress
    assert "width:100.0%" in progress
    assert progress.count("<polyline") == 1
    assert cells["fedavg"].count("<polyline") > 10
    assert of(cells, "fedopt.compare([fedavg, scaffold])").count("<svg") == 2
    study = of(cells, "study = fedopt.Study")
    assert "6 of 6 runs are done" in study
    assert study.count("<svg") == 2
    assert (tmp_path / "runs/quickstart-study/report.html").is_file()
    assert (tmp_path / "runs/quickstart-study/accuracy.pdf").read_bytes().startswith(b"%PDF")
    assert "Linear(in_features=64" in of(cells, "scaffold.model()")


@pytest.mark.slow
def test_own_data_brings_its_clients_and_its_model_is_the_one_reported(tmp_path: Path) -> None:
    cells = executed("own-data", tmp_path)
    assert "8 clients" in of(cells, "data = fedopt.Data.from_pandas")
    predicted = float(of(cells, "import torch").removeprefix("np.float64(").removesuffix(")"))
    assert predicted == pytest.approx(float(of(cells, "history.summary")), abs=1e-9)
    assert predicted > 0.8


@pytest.mark.slow
def test_own_algorithm_is_compared_with_fedavg(tmp_path: Path) -> None:
    cells = executed("own-algorithm", tmp_path)
    comparison = of(cells, "comparison = ")
    assert "FedProx, µ = 1" in comparison
    assert comparison.count("<svg") == 2
