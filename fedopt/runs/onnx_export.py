"""The final model of a run as an ONNX file, which other programs than PyTorch can run."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

from fedopt.errors import InvalidExperiment
from fedopt.runs.history import History
from fedopt.runs.model_file import facts_of
from fedopt.storage.files import replace_file, storing

INPUT, OUTPUT = "x", "logits"
"""Names in the file."""


def to_onnx(history: History, path: Path) -> Path:
    """Writes the file: from x [batch, *sample_shape] to logits [batch, classes], for any batch size."""
    missing = [package for package in ("onnx", "onnxscript") if find_spec(package) is None]
    if missing:
        raise InvalidExperiment(f"ONNX export needs {' and '.join(missing)}: pip install 'fedopt[onnx]'")
    module = history.model()
    dtype = next(module.parameters()).dtype
    samples = torch.zeros(2, *facts_of(history.directory, history.experiment).sample_shape, dtype=dtype)
    try:
        program = torch.onnx.export(
            module,
            (samples,),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: "batch"},),
            dynamo=True,
            verbose=False,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InvalidExperiment(f"model.name: {history.experiment.model.name} has no ONNX form: {reason}") from error
    assert program is not None
    with storing(path.absolute().parent):
        replace_file(path, program.model_proto.SerializeToString())
    return path
