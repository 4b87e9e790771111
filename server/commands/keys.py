"""`fedopt keys`: certificates and keys for a federation to start with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedopt.commands.options import command

app = command("keys")


@app.command(epilog="Example:  fedopt keys keys --clients 4 --host federation.example.org --host 192.0.2.1")
def keys(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new directory for them.")],
    clients: Annotated[int, typer.Option("--clients", metavar="N", min=1, help="How many clients.")] = 4,
    host: Annotated[
        list[str] | None,
        typer.Option("--host", metavar="NAME|IP", help="What clients call the server, besides localhost; repeatable."),
    ] = None,
    days: Annotated[int, typer.Option("--days", min=1, help="How long the certificates are valid.")] = 365,
) -> None:
    """Make an authority, the server's certificate signed by it, and a key pair for each client.

    The server takes the whole directory (--keys DIR). A client takes ca.crt and its own client-N.key, and
    nobody else's.
    """
    from server.keys import make_keys

    make_keys(folder, clients, host or [], days)
    last = clients - 1
    print(f"""{folder}/ca.crt              for everyone
{folder}/server.crt, .key    for the server:  fedopt server --keys {folder}
{folder}/client-N.key        for client N alone, 0 to {last}:  fedopt client --ca ca.crt --key client-N.key
{folder}/client-N.pub        for the server, which knows client N by it
{folder}/ca.key              for you: keep it off both""")
