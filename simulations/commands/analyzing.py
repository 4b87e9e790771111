"""Options that commands of `fedopt analyze` share."""

from __future__ import annotations

from typing import Annotated

import typer

MODELS = (
    "initial, final, round:K, client:I (after its work in one more round), client:I@K (in the round after K), own:I, "
    "or another run's directory"
)

At = Annotated[
    list[str] | None, typer.Option("--at", metavar="MODEL", help=f"{MODELS}; may be repeated.  [default: final]")
]
Again = Annotated[bool, typer.Option("--again", help="Compute anew what is in DIR/analysis/cache.")]
