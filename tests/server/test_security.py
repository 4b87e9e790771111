"""Who may take part: certificates and keys made by the test, real TLS on loopback."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from clients.deployed.credentials import read_credentials
from clients.deployed.node import Node
from fedopt.errors import FedoptError
from fedopt.experiment.experiment import Experiment
from fedopt.wire import Hello
from server.commands.server import resuming_command
from server.keys import make_keys
from server.roster import Roster
from server.superlink import SuperLink
from server.tls import ServerIdentity, read_client_keys
from tests.processes import Process, Processes, running_processes

EXPERIMENT = ("--set", "data.name=synthetic", "--set", "data.partition=iid", "--set", "run.rounds=2")


def key(folder: Path, client: int) -> tuple[str, Path]:
    return "--key", folder / f"client-{client}.key"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For two clients, and keys of others that sign and know nothing here."""
    folder = tmp_path_factory.mktemp("security")
    make_keys(folder / "ours", 2, [], 1)
    make_keys(folder / "others", 2, [], 1)
    return folder


@pytest.fixture(scope="module")
def guarded(keys: Path) -> Iterator[tuple[Processes, Process]]:
    """A server with TLS that knows two clients and waits for them."""
    with running_processes(keys) as processes:
        server = processes.server("--clients", "2", "--keys", keys / "ours", "--out", keys / "run", *EXPERIMENT)
        server.wait_for("listening on")
        assert "TLS, registered clients only" in server.output
        yield processes, server


@pytest.mark.deployment
@pytest.mark.parametrize(
    ("who", "sentence"),
    [
        pytest.param("plaintext", "speaks TLS; give its certificate authority with --ca", marks=pytest.mark.slow),
        pytest.param("another authority", "cannot be trusted: ", marks=pytest.mark.slow),
        pytest.param("no key", "the server accepts only clients whose keys it knows; give", marks=pytest.mark.slow),
        ("an unknown key", "the server refuses this client: its key is not registered here"),
        pytest.param("another client's key", "its key is that of client 1; it cannot act", marks=pytest.mark.slow),
        ("a number out of range", "the federation's clients are 0 to 1"),
    ],
)
def test_whoever_does_not_belong_is_refused_before_any_weight_is_sent(
    who: str, sentence: str, guarded: tuple[Processes, Process], keys: Path
) -> None:
    processes, server = guarded
    trusted = ("--ca", keys / "ours" / "ca.crt")
    options: dict[str, tuple[str | Path, ...]] = {
        "plaintext": (),
        "another authority": ("--ca", keys / "others" / "ca.crt", *key(keys / "ours", 0)),
        "no key": trusted,
        "an unknown key": (*trusted, *key(keys / "others", 0)),
        "another client's key": (*trusted, *key(keys / "ours", 1)),
        "a number out of range": (*trusted, *key(keys / "ours", 0)),
    }
    client = processes.client(7 if who == "a number out of range" else 0, *options[who])
    assert client.wait() == 1
    assert sentence in client.output.replace("\n", " ")
    assert "Traceback" not in client.output
    assert "loss" not in client.output
    if who in ("no key", "an unknown key"):
        assert "refused a client from ipv4:127.0.0.1" in server.output
        assert "refused a client from ipv4:127.0.0.1" in (keys / "run" / "server.log").read_text()
    if who in ("another client's key", "a number out of range"):
        assert "rejected a client: " in server.output
    assert not (keys / "run" / "metrics.jsonl").exists(), "nobody has been sent any weights"


@pytest.mark.deployment
def test_clients_with_their_keys_train_over_tls_and_a_number_is_given_once(processes: Processes, keys: Path) -> None:
    run = processes.folder / "run"
    server = processes.server("--clients", "2", "--keys", keys / "ours", "--out", run, *EXPERIMENT)
    server.wait_for("listening on")
    trusted = ("--ca", keys / "ours" / "ca.crt")
    first = processes.client(0, *trusted, *key(keys / "ours", 0))
    server.wait_for("client 0 connected with")
    double = processes.client(0, *trusted, *key(keys / "ours", 0))
    assert double.wait() == 1
    assert "a client with its key is connected already" in double.output.replace("\n", " ")
    second = processes.client(1, *trusted, *key(keys / "ours", 1))
    assert server.wait() == 0, server.output
    assert [first.wait(), second.wait()] == [0, 0]
    assert json.loads((run / "summary.json").read_text())["rounds"] == 2


PLAIN, OPEN, KEYED = "plaintext", "TLS", "TLS and keys"
MODEL_BYTES = 4 * (60 * 64 + 64 + 64 * 10 + 10)
"""Of the model that the server has."""

IN = "ready, with"
"""What a client says that was let in."""

MATRIX = [
    # server, authority, key, and what the client says
    (PLAIN, None, None, IN),
    (PLAIN, "ours", None, "does not speak TLS"),
    (PLAIN, "ours", "ours/client-0", "does not speak TLS"),
    (PLAIN, "others", None, "does not speak TLS"),
    (OPEN, "ours", None, IN),
    (OPEN, "ours", "ours/client-0", "the server refuses this client: its key is not registered here"),
    (OPEN, None, None, "speaks TLS; give its certificate authority with --ca"),
    (OPEN, "others", None, "cannot be trusted: "),
    (OPEN, "others", "others/client-0", "cannot be trusted: "),
    (KEYED, "ours", "ours/client-0", IN),
    (KEYED, "ours", "pem", IN),
    (KEYED, "ours", None, "the server accepts only clients whose keys it knows"),
    (KEYED, "ours", "others/client-0", "its key is not registered here"),
    (KEYED, "ours", "revoked", "its key is not registered here"),
    (KEYED, "ours", "ours/client-1", "its key is that of client 1; it cannot act as client 0"),
    (KEYED, "others", "ours/client-0", "cannot be trusted: "),
    (KEYED, "others", None, "cannot be trusted: "),
    (KEYED, None, None, "speaks TLS; give its certificate authority with --ca"),
    ("expired", "old", None, "cannot be trusted: certificate has expired"),
    ("not yet valid", "future", None, "cannot be trusted: certificate is not yet valid"),
    ("another host", "elsewhere", None, "cannot be trusted: IP address mismatch"),
    ("its own authority", "ours", None, "cannot be trusted: "),
]


@pytest.fixture(scope="module")
def more_keys(keys: Path) -> Path:
    """Certificates that are out of date or of another host, a key that was taken back, and one of an older fedopt."""
    make_keys(keys / "old", 1, [], 1, starts=datetime.now(UTC) - timedelta(days=3))
    make_keys(keys / "future", 1, [], 1, starts=datetime.now(UTC) + timedelta(days=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("server.keys.LOCAL", ("192.0.2.7",))
        make_keys(keys / "elsewhere", 1, [], 1)
    make_keys(keys / "once", 1, [], 1)
    (keys / "revoked.key").write_bytes((keys / "once" / "client-0.key").read_bytes())
    key = read_credentials(None, keys / "ours" / "client-0.key").key
    assert key is not None
    (keys / "pem.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return keys


@pytest.mark.deployment
@pytest.mark.parametrize(("kind", "authority", "key", "sentence"), MATRIX)
def test_every_pair_of_server_and_client_agrees_or_refuses_in_a_sentence(
    kind: str, authority: str | None, key: str | None, sentence: str, more_keys: Path, tmp_path: Path
) -> None:
    """Over real TLS, in one process: the same refusals as with the real commands above, and faster."""
    folder = more_keys / {"expired": "old", "not yet valid": "future", "another host": "elsewhere"}.get(kind, "ours")
    if kind == "its own authority":
        folder = more_keys / "others"
    identity = ServerIdentity(*((folder / name).read_bytes() for name in ("server.crt", "server.key", "ca.crt")))
    known = read_client_keys(more_keys / "ours", 2) if kind == KEYED else None
    credentials = read_credentials(
        None if authority is None else more_keys / authority / "ca.crt",
        None if key is None else more_keys / f"{key}.key",
    )
    experiment = Experiment(data={"name": "synthetic", "partition": "iid", "clients": 2})
    hello = Hello.of("abc", experiment, (60,), [str(label) for label in range(10)])
    config = {"partition-id": 0, "state": str(tmp_path / "state"), "device": "cpu", "resident": True}
    said: list[str] = []
    with (
        pytest.MonkeyPatch.context() as patch,
        SuperLink("127.0.0.1:0", None if kind == PLAIN else identity, known, said.append, 1024) as superlink,
    ):
        patch.setattr("clients.deployed.connection.RECONNECT_GRACE", 1.0)
        roster = Roster(superlink.link, hello, 2, superlink.owners, said.append, experiment.admission)
        node = Node(f"127.0.0.1:{superlink.port}", credentials, dict(config), said.append)

        def live() -> None:
            try:
                node.run()
            except FedoptError as error:
                said.append(f"refused: {error}")

        client = threading.Thread(target=live, daemon=True)
        client.start()
        end = time.monotonic() + 60
        seen = set(superlink.owners)
        while not any(sentence in line for line in said):
            assert time.monotonic() < end, said
            roster.update()
            seen |= set(superlink.link.nodes())
            superlink.link.wait(0.05)
        if sentence == IN:
            roster.update()
            roster.dismiss("over")
            client.join(20)
        else:
            client.join(20)
            assert any(line.startswith("refused: ") and sentence in line for line in said), said
            assert roster.connection_of(0) is None
        assert not client.is_alive()
        sent = [superlink.link.traffic(node_id) for node_id in seen]
        assert all(counted is not None and counted[0] < MODEL_BYTES / 2 for counted in sent), "the hello is smaller"


@pytest.mark.deployment
def test_a_server_whose_certificate_has_expired_is_not_trusted(tmp_path: Path) -> None:
    """The server itself would refuse to start; a clock set right later is what a client meets."""
    import ssl
    import threading

    make_keys(tmp_path / "old", 1, [], 1, starts=datetime.now(UTC) - timedelta(days=3))
    with running_processes(tmp_path) as processes:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "old" / "server.crt", tmp_path / "old" / "server.key")
        context.set_alpn_protocols(["h2"])
        import socket

        listener = socket.create_server(("127.0.0.1", int(processes.address.rpartition(":")[2])))

        def greet() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    try:
                        context.wrap_socket(connection, server_side=True).close()
                    except (ssl.SSLError, OSError):
                        continue

        threading.Thread(target=greet, daemon=True).start()
        client = processes.client(0, "--ca", tmp_path / "old" / "ca.crt", *key(tmp_path / "old", 0))
        assert client.wait() == 1
        listener.close()
        assert "cannot be trusted: certificate has expired" in client.output.replace("\n", " ")


@pytest.mark.deployment
def test_a_server_that_gives_up_names_the_options_that_it_needs_to_resume(keys: Path, processes: Processes) -> None:
    folder, run = keys / "ours", processes.folder / "run"
    impatient = ("--set", "run.patience=0.1")
    server = processes.server("--clients", "2", "--keys", folder, "--out", run, *EXPERIMENT, *impatient)
    assert server.wait() == 1
    command = f"fedopt server --listen {processes.address} --keys {folder} --resume {run}"
    assert f"continue with: {command}" in " ".join(server.output.split())


def test_the_command_that_resumes_has_the_options_of_this_one() -> None:
    tls = {"tls_cert": Path("a b.crt"), "tls_key": Path("b.key"), "ca": Path("ca.crt"), "client_keys": Path("keys")}
    assert resuming_command("0.0.0.0:9092", False, keys=None, **tls) == (
        "fedopt server --listen 0.0.0.0:9092 --tls-cert 'a b.crt' --tls-key b.key --ca ca.crt --client-keys keys"
    )
    assert resuming_command("0.0.0.0:9092", True) == "fedopt server --listen 0.0.0.0:9092 --insecure"
    assert resuming_command("127.0.0.1:9092", False, keys=None, ca=None) == "fedopt server --listen 127.0.0.1:9092"


@pytest.mark.slow
@pytest.mark.deployment
def test_two_clients_with_one_number_and_no_keys(processes: Processes) -> None:
    server = processes.server("--clients", "2", "--out", processes.folder / "run", *EXPERIMENT)
    first = processes.client(0)
    server.wait_for("client 0 connected with")
    second = processes.client(0)
    assert second.wait() == 1
    assert "client 0 is connected already; give this one another number" in second.output.replace("\n", " ")
    last = processes.client(1)
    assert [server.wait(), first.wait(), last.wait()] == [0, 0, 0]
