"""`fedopt keys`: creates certificates and keys for a federation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedopt.commands.options import command

app = command("keys")


@app.command(epilog="Example:  fedopt keys keys --clients 4 --host federation.example.org --host 192.0.2.1")
def keys(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new directory for the files.")],
    clients: Annotated[int, typer.Option("--clients", metavar="N", min=1, help="Number of clients.")] = 4,
    host: Annotated[
        list[str] | None,
        typer.Option(
            "--host", metavar="NAME|IP", help="A name or address of the server besides localhost; may be repeated."
        ),
    ] = None,
    days: Annotated[int, typer.Option("--days", min=1, help="Days for which the certificates are valid.")] = 365,
) -> None:
    """Make a certificate authority, the server's certificate signed by it, and a key pair for each client.

    The server needs the whole directory (--keys DIR). A client needs ca.crt and its own client-N.key only.
    """
    from server.keys import make_keys

    make_keys(folder, clients, host or [], days)
    last = clients - 1
    print(f"""{folder}/ca.crt              for everyone
{folder}/server.crt, .key    for the server:  fedopt server --keys {folder}
{folder}/client-N.key        for client N only, 0 to {last}:  fedopt client --ca ca.crt --key client-N.key
{folder}/client-N.pub        for the server, which identifies client N by it
{folder}/ca.key              for you only: copy it neither to the server nor to a client""")
