"""`fedopt client`: one client of a deployed federation, resident on the machine that holds its data.

Imports that load torch are inside the functions, so that `--help` does not wait for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedopt.addresses import is_loopback, split_address
from fedopt.commands.options import LogFile, Overrides, Quiet, Verbose, command
from fedopt.commands.output import set_up_output
from fedopt.errors import InvalidExperiment, NotStored

app = command("client")


@app.command(
    epilog="Example:  fedopt client --server 192.0.2.1:9092 --client 0 --ca keys/ca.crt --key keys/client-0.key"
)
def client(
    server: Annotated[str, typer.Option("--server", metavar="HOST:PORT", help="The server's address.")],
    number: Annotated[int, typer.Option("--client", metavar="N", min=0, help="This client's number, from 0.")],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="FILE|FOLDER",
            help="This client's own data: an .npz with x_train and y_train, a table, or a folder CLASS/*.png. "
            "By default, client N of the experiment's partition.",
        ),
    ] = None,
    state: Annotated[
        Path, typer.Option("--state", metavar="DIR", help="A directory for state that must survive a restart.")
    ] = Path("fedopt-state"),
    device: Annotated[
        str | None,
        typer.Option("--device", metavar="NAME", help="auto (a GPU if there is one; the default), cpu, cuda or mps."),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option("--ca", metavar="FILE", help="The certificate authority that signed the server's certificate."),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="FILE", help="The private key that identifies this client to the server."),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Send everything in plaintext, even to another machine.")
    ] = False,
    code: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-code",
            metavar="PACKAGE.MODULE:NAME",
            help="A class or model function on this machine that the server may name; may be repeated.",
        ),
    ] = None,
    allow_model: Annotated[list[str] | None, typer.Option("--allow-model", hidden=True)] = None,
    overrides: Overrides = None,
    quiet: Quiet = False,
    verbose: Verbose = 0,
    log_file: LogFile = None,
) -> None:
    """Take part in a federation until its run is complete.

    Waits until the server can be reached, and reconnects when the connection is lost. The experiment comes from the
    server; paths and devices belong to this machine: `--set` takes data.path, data.download, run.device, run.threads.
    """
    if allow_model:
        raise InvalidExperiment(f"--allow-model is called --allow-code now: give --allow-code {allow_model[0]}")
    host, _ = split_address(server, "--server")
    if ca is None and not insecure and not is_loopback(host):
        raise InvalidExperiment(
            f"--server {server}: this is another machine; give the server's certificate authority with --ca, "
            "or --insecure to send everything in plaintext"
        )
    if ca is None and key is not None:
        raise InvalidExperiment("--key works over TLS only; give --ca as well")
    given = [*([] if device is None else [f"run.device={device}"]), *(overrides or [])]
    _check_overrides(given)

    from clients.deployed.connection import Rejected
    from clients.deployed.credentials import read_credentials
    from clients.deployed.node import Node

    output = set_up_output(quiet, verbose, log_file)

    def report(line: str) -> None:
        output.say(f"client {number}: {line}")

    config: dict[str, str | int | bool] = {
        "partition-id": number,
        "state": str(state.absolute()),
        "resident": True,
        "set": "\n".join(given),
        "allow-code": "\n".join(code or []),
    }
    if data is not None:
        if not data.exists():
            raise InvalidExperiment(f"--data {data}: there is no such file or folder")
        config["data"] = str(data.absolute())
    try:
        Node(server, read_credentials(ca, key), config, report).run()
    except (Rejected, NotStored) as refusal:
        raise type(refusal)(f"client {number}: {refusal}") from refusal


def _check_overrides(overrides: list[str]) -> None:
    """A client may override only what belongs to its machine."""
    from fedopt.experiment.file import override
    from fedopt.wire import OWN

    for text in overrides:
        (section, keys), *_ = override({}, [text]).items()
        key = next(iter(keys))
        if key not in OWN.get(section, ()):
            own = ", ".join(f"{section}.{key}" for section, keys in OWN.items() for key in sorted(keys))
            raise InvalidExperiment(f"--set {text}: the server decides {section}.{key}; a client may set {own}")
    override({}, overrides)  # raises if two overrides contradict each other
