"""Finds out why a TLS connection fails, by a plain handshake: gRPC reports every failure as "unavailable"."""

from __future__ import annotations

import socket
import ssl

SECONDS = 3.0


def why_tls_fails(address: str, ca: bytes | None) -> str | None:
    """A sentence if retrying is useless; None if the connection may succeed later."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), SECONDS) as plain:
            if ca is None:
                return _plaintext_refused(plain, address)
            context = ssl.create_default_context(cadata=ca.decode("ascii"))
            with context.wrap_socket(plain, server_hostname=host.strip("[]")):
                return None
    except ssl.SSLCertVerificationError as error:
        return f"the certificate of the server at {address} cannot be trusted: {error.verify_message}"
    except ssl.SSLError:
        return f"the server at {address} does not speak TLS; is it running with --insecure?"
    except (OSError, ValueError):
        return None  # the server cannot be reached, or not yet


def _plaintext_refused(plain: socket.socket, address: str) -> str | None:
    """A sentence if the server requires TLS: it completes a handshake with a client that trusts any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # only to find out; no data are sent
    try:
        with context.wrap_socket(plain):
            return f"the server at {address} speaks TLS; give its certificate authority with --ca"
    except (ssl.SSLError, OSError):
        return None
