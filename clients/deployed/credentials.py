"""A client's certificate authority and private key, read from files."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from clients.deployed.connection import Credentials
from fedopt.errors import InvalidExperiment


def read_credentials(ca: Path | None, key: Path | None) -> Credentials:
    """Reads both files. Raises InvalidExperiment if one of them cannot be used."""
    return Credentials(None if ca is None else _authority(ca), None if key is None else _private_key(key))


def _authority(file: Path) -> bytes:
    content = _read(file, "--ca")
    try:
        x509.load_pem_x509_certificate(content)
    except ValueError as error:
        raise InvalidExperiment(f"--ca {file} is not a certificate in PEM") from error
    return content


def _private_key(file: Path) -> ec.EllipticCurvePrivateKey:
    content = _read(file, "--key")
    for load in (serialization.load_pem_private_key, serialization.load_ssh_private_key):
        try:
            key = load(content, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            continue
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return key
    raise InvalidExperiment(f"--key {file} is not an elliptic-curve private key without a password")


def _read(file: Path, option: str) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidExperiment(f"{option} {file} cannot be read: {error.strerror}") from error
