"""Makes a certificate authority, a server certificate and client keys."""

from __future__ import annotations

import ipaddress
import os
import secrets
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fedopt.errors import InvalidExperiment

LOCAL = ("localhost", "127.0.0.1", "::1")


def make_keys(folder: Path, clients: int, hosts: list[str], days: int, starts: datetime | None = None) -> None:
    """Fills a new `folder`, completely or not at all. Certificates are valid for `days` from `starts`, or from now."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidExperiment(f"{folder} exists already, and keys are never overwritten; give a new directory")
    draft = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.draft")
    try:
        draft.mkdir(parents=True, mode=0o700)
        try:
            _fill(draft, clients, hosts, days, starts or datetime.now(UTC) - timedelta(minutes=5))
            draft.replace(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise InvalidExperiment(f"{folder} cannot be created: {error.strerror}") from error


def _fill(folder: Path, clients: int, hosts: list[str], days: int, starts: datetime) -> None:
    ca_key, server_key = _new_key(), _new_key()
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedopt authority")])
    ca = _certificate(authority, authority, ca_key.public_key(), ca_key, starts, days, authority_of=True, hosts=[])
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fedopt server")])
    every = [*LOCAL, *hosts]
    server = _certificate(
        name, authority, server_key.public_key(), ca_key, starts, days, authority_of=False, hosts=every
    )
    for file, certificate in (("ca.crt", ca), ("server.crt", server)):
        (folder / file).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    _write_private(folder / "ca.key", ca_key)
    _write_private(folder / "server.key", server_key)
    for client in range(clients):
        key = _new_key()
        # OpenSSH form is the only form that stock SuperNodes and `flwr supernode register` read.
        _write_private(folder / f"client-{client}.key", key, serialization.PrivateFormat.OpenSSH)
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        (folder / f"client-{client}.pub").write_bytes(public + f" fedopt-client-{client}\n".encode())


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())  # the curve Flower signs with


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
    starts: datetime,
    days: int,
    *,
    authority_of: bool,
    hosts: list[str],
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(starts)
        .not_valid_after(starts + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=authority_of, path_length=0 if authority_of else None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if authority_of:
        usage = x509.KeyUsage(
            key_cert_sign=True,
            crl_sign=True,
            **dict.fromkeys(
                (
                    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
                    *("key_agreement", "encipher_only", "decipher_only"),
                ),
                False,
            ),
        )
        builder = builder.add_extension(usage, critical=True)
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), False)
    return builder.sign(signer, hashes.SHA256())


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError as error:
        raise InvalidExperiment(f"--host {host}: neither an IP address nor a host name") from error


def _write_private(
    file: Path,
    key: ec.EllipticCurvePrivateKey,
    form: serialization.PrivateFormat = serialization.PrivateFormat.PKCS8,
) -> None:
    content = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(content)
