"""What a server and a client refuse before they connect: certificates, key files, command lines."""

from __future__ import annotations

from argparse import Namespace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from flwr.cli.supernode.register import try_load_public_key
from flwr.supernode.cli.flower_supernode import _try_setup_client_authentication

from clients.deployed.credentials import read_credentials
from fedopt.errors import InvalidExperiment
from server.keys import make_keys
from server.tls import read_client_keys, read_identity
from tests.commands import fedopt, fedopt_here


def test_certificates_that_are_no_use_are_refused(tmp_path: Path) -> None:
    make_keys(tmp_path / "a", 2, [], 1)
    make_keys(tmp_path / "b", 1, [], 1)
    make_keys(tmp_path / "old", 1, [], 1, starts=datetime.now(UTC) - timedelta(days=3))
    (tmp_path / "junk").write_bytes(b"\x00 not a certificate")
    a, b, old = tmp_path / "a", tmp_path / "b", tmp_path / "old"
    for certificate, private, ca, sentence in [
        (a / "server.crt", b / "server.key", a / "ca.crt", "is not the key of"),
        (a / "server.crt", a / "server.key", b / "ca.crt", "was not signed by"),
        (old / "server.crt", old / "server.key", old / "ca.crt", "make a new one"),
        (tmp_path / "junk", a / "server.key", a / "ca.crt", "is not a certificate in PEM"),
        (a / "server.crt", tmp_path / "junk", a / "ca.crt", "is not a private key"),
        (a / "server.crt", tmp_path / "none", a / "ca.crt", "cannot be read: No such file"),
    ]:
        with pytest.raises(InvalidExperiment, match=sentence):
            read_identity(certificate, private, ca)
    assert read_identity(a / "server.crt", a / "server.key", a / "ca.crt").certificate


def test_client_keys_must_be_there_be_keys_and_differ(tmp_path: Path) -> None:
    make_keys(tmp_path / "a", 2, [], 1)
    assert sorted(read_client_keys(tmp_path / "a", 2)) == [0, 1]
    with pytest.raises(InvalidExperiment, match=r"there is no client-2\.pub"):
        read_client_keys(tmp_path / "a", 3)
    (tmp_path / "a" / "client-1.pub").write_bytes((tmp_path / "a" / "client-0.pub").read_bytes())
    with pytest.raises(InvalidExperiment, match="clients 0 and 1 have the same key"):
        read_client_keys(tmp_path / "a", 2)
    (tmp_path / "a" / "client-1.pub").write_text("ssh-ed25519 AAAA")
    with pytest.raises(InvalidExperiment, match=r"client-1\.pub is not an elliptic-curve public key"):
        read_client_keys(tmp_path / "a", 2)


def test_a_key_that_ssh_keygen_made_will_do(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    public = ec.generate_private_key(ec.SECP384R1()).public_key()
    (tmp_path / "client-0.pub").write_bytes(
        public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH) + b" me@here\n"
    )
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert read_client_keys(tmp_path, 1) == {0: pem}


def test_flower_reads_the_keys_that_are_made_and_fedopt_reads_its_older_ones_too(tmp_path: Path) -> None:
    """Flower reads OpenSSH's form alone; `fedopt keys` once wrote PKCS #8 and SubjectPublicKeyInfo."""
    make_keys(tmp_path / "keys", 1, [], 1)
    private, public = tmp_path / "keys" / "client-0.key", tmp_path / "keys" / "client-0.pub"
    arguments = Namespace(auth_supernode_private_key=str(private), auth_supernode_public_key=None)
    loaded = _try_setup_client_authentication(arguments)
    assert loaded is not None
    by_flower = loaded[0].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert try_load_public_key(public) == by_flower
    assert read_client_keys(tmp_path / "keys", 1) == {0: by_flower}

    (tmp_path / "older").mkdir()
    older, older_public = tmp_path / "older" / "client-0.key", tmp_path / "older" / "client-0.pub"
    older.write_bytes(loaded[0].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    older_public.write_bytes(by_flower)
    assert read_client_keys(tmp_path / "older", 1) == {0: by_flower}
    for file in (private, older):
        key = read_credentials(None, file).key
        assert key is not None
        assert key.private_numbers() == loaded[0].private_numbers()


def test_what_holds_a_key_does_not_print_it(tmp_path: Path) -> None:
    make_keys(tmp_path / "keys", 1, [], 1)
    folder = tmp_path / "keys"
    identity = read_identity(folder / "server.crt", folder / "server.key", folder / "ca.crt")
    assert "PRIVATE KEY" in identity.key.decode()
    assert "PRIVATE KEY" not in repr(identity)
    assert "ECPrivateKey" not in repr(read_credentials(folder / "ca.crt", folder / "client-0.key"))


def test_keys_are_private_complete_and_never_written_over(tmp_path: Path) -> None:
    done = fedopt("keys", tmp_path / "keys", "--clients", "2", "--host", "192.0.2.7", "--host", "fed.example.org")
    assert done.returncode == 0
    names = {file.name for file in (tmp_path / "keys").iterdir()}
    assert names == {
        *("ca.crt", "ca.key", "server.crt", "server.key"),
        *("client-0.key", "client-0.pub", "client-1.key", "client-1.pub"),
    }
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "keys").glob("*.key")} == {0o600}
    again = fedopt("keys", tmp_path / "keys")
    assert again.returncode == 2
    assert "never overwritten" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("server", "--listen", "0.0.0.0:9092"), "other machines can reach this; make certificates with `fedopt keys"),
        (("server", "--listen", "9092"), "an address is HOST:PORT"),
        (("server", "--listen", "127.0.0.1:99999"), "an address is HOST:PORT"),
        (("server", "--tls-cert", "a.crt"), "TLS takes all three"),
        (("server", "--keys", "nowhere"), "cannot be read"),
        (("server", "--client-keys", "nowhere"), "give certificates as well"),
        (("server", "--insecure", "--keys", "nowhere"), "give one or the other"),
        (("server", "--clients", "4", "--set", "run.cohort=5", "--listen", "127.0.0.1:0"), "data.clients is 4"),
        (("client", "--server", "example.org:9092", "--client", "0"), "or --insecure to send everything in plaintext"),
        (("client", "--server", "127.0.0.1:9", "--client", "0", "--key", "k"), "give --ca as well"),
        (("client", "--server", "127.0.0.1:9", "--client", "0", "--ca", "none.crt"), "cannot be read"),
        (("client", "--server", "127.0.0.1:9", "--client", "0", "--data", "none"), "no such file or folder"),
        (
            ("client", "--server", "127.0.0.1:9", "--client", "0", "--set", "local.lr=1.0"),
            "the server decides local.lr; a client may set data.download, data.path, data.test, model.weights, "
            "run.device",
        ),
    ],
)
def test_a_mistaken_command_line_is_answered_in_a_sentence(
    arguments: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    done = fedopt_here(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert sentence in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_port_in_use_is_said_before_anything_is_written(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = fedopt("server", "--listen", address, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert f"--listen {address}: address already in use" in done.stderr
    assert not (tmp_path / "run").exists()
