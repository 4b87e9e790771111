"""`fedopt server`: a federation's server, whose clients join over gRPC."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from fedopt.addresses import is_loopback, split_address
from fedopt.commands.options import (
    AsJson,
    ExperimentFile,
    LogFile,
    Out,
    Overrides,
    Progress,
    ProgressStyle,
    Quiet,
    Resume,
    TensorBoardFiles,
    Track,
    Verbose,
    command,
)
from fedopt.commands.output import set_up_output
from fedopt.commands.reporting import chosen_experiment, conclude, introduce
from fedopt.errors import InvalidExperiment

app = command("server")

Clients = Annotated[
    int | None, typer.Option("--clients", metavar="N", min=1, help="Number of clients; sets data.clients.")
]


@app.command(epilog="Example:  fedopt server examples/mnist.toml --listen 0.0.0.0:9092 --clients 4 --keys keys")
def server(
    experiment: ExperimentFile = None,
    listen: Annotated[
        str, typer.Option("--listen", metavar="HOST:PORT", help="The address on which the server listens.")
    ] = "127.0.0.1:9092",
    clients: Clients = None,
    overrides: Overrides = None,
    out: Out = None,
    resume: Resume = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            "--keys", metavar="DIR", help="A directory made by `fedopt keys`; replaces the four options below."
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option("--tls-cert", metavar="FILE", help="The server's certificate.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option("--tls-key", metavar="FILE", help="The server's private key.")] = None,
    ca: Annotated[
        Path | None,
        typer.Option("--ca", metavar="FILE", help="The certificate authority that signed the server's certificate."),
    ] = None,
    client_keys: Annotated[
        Path | None,
        typer.Option(
            "--client-keys",
            metavar="DIR",
            help="A directory with client-0.pub, client-1.pub, ...: only these clients may join.",
        ),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Send everything in plaintext, even to other machines.")
    ] = False,
    track: Track = None,
    tensorboard: TensorBoardFiles = False,
    progress: Progress = ProgressStyle.AUTO,
    quiet: Quiet = False,
    verbose: Verbose = 0,
    log_file: LogFile = None,
    as_json: AsJson = False,
) -> None:
    """Serve a federation: wait for its clients, train with them, and dismiss them.

    The output is that of `fedopt run`, plus server.log in the run's directory. A server that was killed continues with
    --resume, and its clients reconnect by themselves. Settings for waiting: run.patience, run.deadline,
    run.min_replies, run.over_select.

    Clients are `fedopt client` processes; stock SuperNodes of Flower 1.39 can join too (newer ones speak HTTP only).
    """
    command = resuming_command(
        listen, insecure, keys=keys, tls_cert=tls_cert, tls_key=tls_key, ca=ca, client_keys=client_keys
    )
    tls_cert, tls_key, ca, client_keys = _with_keys(keys, tls_cert, tls_key, ca, client_keys)
    _check_security(listen, (tls_cert, tls_key, ca), client_keys, insecure)
    changes = [*(overrides or []), *([f"data.clients={clients}"] if clients is not None else [])]
    settings = chosen_experiment(experiment, changes, out, resume)
    output = set_up_output(quiet, verbose, log_file, progress)
    observers = introduce(settings, output, track, deployed=True)

    from server.deployment import open_run, run_deployed
    from server.options import DeploymentOptions
    from server.server_log import journal
    from server.superlink import SuperLink, check_free
    from server.tls import read_client_keys, read_identity

    check_free(listen)
    identity = read_identity(tls_cert, tls_key, ca) if tls_cert and tls_key and ca else None
    known = read_client_keys(client_keys, settings.data.clients) if client_keys else None
    with (
        open_run(settings, out, resume, changes) as (directory, setup),
        journal(directory.path / "server.log"),
        SuperLink(listen, identity, known, output.say, setup.vector_bytes) as superlink,
    ):
        output.say(f"listening on {listen}, {_protection(identity is not None, known is not None)}")
        options = DeploymentOptions(
            command,
            output.say,
            observers=observers,
            owners=superlink.owners,
        )
        history = run_deployed(directory, setup, superlink.link, options)
    conclude(history, output, observers, as_json)


def resuming_command(listen: str, insecure: bool, **security: Path | None) -> str:
    """The command that serves the same clients again, without --resume. `security` has the paths of the options about
    keys and certificates, by the options' names."""
    given = [f"--{name.replace('_', '-')} {shlex.quote(str(path))}" for name, path in security.items() if path]
    return " ".join(["fedopt server --listen", listen, *given, *(["--insecure"] if insecure else [])])


def _with_keys(
    keys: Path | None, tls_cert: Path | None, tls_key: Path | None, ca: Path | None, client_keys: Path | None
) -> tuple[Path | None, Path | None, Path | None, Path | None]:
    """The four files, where --keys gives the ones that are not set by their own option."""
    if keys is None:
        return tls_cert, tls_key, ca, client_keys
    return tls_cert or keys / "server.crt", tls_key or keys / "server.key", ca or keys / "ca.crt", client_keys or keys


def _check_security(
    listen: str, tls: tuple[Path | None, Path | None, Path | None], client_keys: Path | None, insecure: bool
) -> None:
    host, _ = split_address(listen, "--listen")
    given = [file is not None for file in tls]
    if any(given) and not all(given):
        raise InvalidExperiment("TLS takes all three: --tls-cert, --tls-key and --ca (or --keys, which replaces them)")
    if any(given) and insecure:
        raise InvalidExperiment("--insecure means plaintext, and certificates mean TLS; give one or the other")
    if client_keys is not None and not any(given):
        raise InvalidExperiment("--client-keys works over TLS only; give certificates as well")
    if not any(given) and not insecure and not is_loopback(host):
        raise InvalidExperiment(
            f"--listen {listen}: other machines can reach this; make certificates with `fedopt keys DIR` and give "
            "--keys DIR, or --insecure to send everything in plaintext"
        )


def _protection(tls: bool, authenticated: bool) -> str:
    if authenticated:
        return "TLS, registered clients only"
    return "TLS, open to any client" if tls else "plaintext"
