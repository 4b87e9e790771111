"""`fedopt export`: the final model of a run for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedopt.commands.options import command

app = command("export")


@app.command(epilog="Example:  fedopt export runs/a --onnx model.onnx")
def export(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The directory of a run.")],
    onnx: Annotated[Path, typer.Option("--onnx", metavar="FILE", help="The ONNX file to write.")],
) -> None:
    """Write the final model of a run as an ONNX file (extra onnx).

    The file's input `x` takes a batch of samples as the run's data source prepares them, its output `logits` has one
    number for each class. For PyTorch no export is needed: model.safetensors is the module's state_dict.
    """
    from fedopt.runs.load import load  # here: --help needs no torch

    print(f"written: {load(directory).to_onnx(onnx)}")
