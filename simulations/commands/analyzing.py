"""Options that commands of `fedopt analyze` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MODELS = (
    "initial, final, round:K, client:I (after its work in one more round), client:I@K (in the round after K), own:I, "
    "or another run's directory"
)

At = Annotated[
    list[str] | None, typer.Option("--at", metavar="MODEL", help=f"{MODELS}; may be repeated.  [default: final]")
]
AnalysisOut = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Folder for the files. [default: analysis/ in DIR]")
]
Again = Annotated[bool, typer.Option("--again", help="Compute anew what is in DIR/analysis/cache.")]
