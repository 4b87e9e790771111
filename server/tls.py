"""The server's certificate and its clients' public keys, read and checked before the server listens."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedopt.errors import InvalidExperiment

CLIENT_KEY = re.compile(r"client-(\d+)\.pub")


@dataclass(frozen=True)
class ServerIdentity:
    """A certificate, its private key, and the certificate of the authority that signed it, all in PEM."""

    certificate: bytes
    key: bytes = field(repr=False)
    ca: bytes

    def credentials(self) -> grpc.ServerCredentials:
        return grpc.ssl_server_credentials([(self.key, self.certificate)])


def read_identity(certificate: Path, key: Path, ca: Path) -> ServerIdentity:
    """Raises InvalidExperiment unless the files belong together and the certificate is valid now."""
    identity = ServerIdentity(*(_read(file) for file in (certificate, key, ca)))
    try:
        signed = x509.load_pem_x509_certificate(identity.certificate)
        authority = x509.load_pem_x509_certificate(identity.ca)
    except ValueError as error:
        raise InvalidExperiment(f"--tls-cert {certificate} or --ca {ca} is not a certificate in PEM") from error
    try:
        private = serialization.load_pem_private_key(identity.key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidExperiment(f"--tls-key {key} is not a private key in PEM without a password") from error
    if private.public_key() != signed.public_key():
        raise InvalidExperiment(f"--tls-key {key} is not the key of --tls-cert {certificate}")
    try:
        signed.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError) as error:
        raise InvalidExperiment(f"--tls-cert {certificate} was not signed by --ca {ca}") from error
    now = datetime.now(UTC)
    if not signed.not_valid_before_utc <= now <= signed.not_valid_after_utc:
        raise InvalidExperiment(
            f"--tls-cert {certificate} is valid from {signed.not_valid_before_utc:%Y-%m-%d} "
            f"to {signed.not_valid_after_utc:%Y-%m-%d}; make a new one (fedopt keys)"
        )
    return identity


def read_client_keys(folder: Path, clients: int) -> dict[int, bytes]:
    """The public key of each client in PEM, from client-0.pub, client-1.pub, ... in the folder."""
    if not folder.is_dir():
        raise InvalidExperiment(f"--client-keys {folder}: there is no such folder")
    keys: dict[int, bytes] = {}
    for file in sorted(folder.glob("*.pub")):
        named = CLIENT_KEY.fullmatch(file.name)
        if named is None or int(named[1]) >= clients:
            continue
        keys[int(named[1])] = public_pem(_read(file), f"--client-keys {file}")
    missing = [client for client in range(clients) if client not in keys]
    if missing:
        raise InvalidExperiment(f"--client-keys {folder}: there is no client-{missing[0]}.pub")
    doubles = {key: client for client, key in keys.items()}
    for client, key in keys.items():
        if doubles[key] != client:
            raise InvalidExperiment(f"--client-keys {folder}: clients {client} and {doubles[key]} have the same key")
    return keys


def public_pem(content: bytes, place: str) -> bytes:
    """Converts an elliptic-curve public key in PEM or OpenSSH form to the PEM form that Flower compares."""
    for load in (serialization.load_pem_public_key, serialization.load_ssh_public_key):
        try:
            key = load(content)
        except (ValueError, UnsupportedAlgorithm):
            continue
        if isinstance(key, ec.EllipticCurvePublicKey):
            return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    raise InvalidExperiment(f"{place} is not an elliptic-curve public key in PEM or OpenSSH form")


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidExperiment(f"{file} cannot be read: {error.strerror}") from error
