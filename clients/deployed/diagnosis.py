"""Why a TLS connection fails: gRPC reports all failures as "unavailable", a plain handshake says which it is."""

from __future__ import annotations

import socket
import ssl

SECONDS = 3.0


def why_tls_fails(address: str, ca: bytes | None) -> str | None:
    """A sentence if server and client will never agree; None if nothing speaks against trying again."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), SECONDS) as plain:
            if ca is None:
                return _plaintext_refused(plain, address)
            context = ssl.create_default_context(cadata=ca.decode("ascii"))
            with context.wrap_socket(plain, server_hostname=host.strip("[]")):
                return None
    except ssl.SSLCertVerificationError as error:
        return f"the certificate of the server at {address} is not to be trusted: {error.verify_message}"
    except ssl.SSLError:
        return f"the server at {address} does not speak TLS; is it running with --insecure?"
    except (OSError, ValueError):
        return None  # not there, or not yet


def _plaintext_refused(plain: socket.socket, address: str) -> str | None:
    """Whether a server insists on TLS: it takes a TLS greeting from one that would trust anybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # to ask only; nothing is sent through it
    try:
        with context.wrap_socket(plain):
            return f"the server at {address} speaks TLS; give its certificate authority with --ca"
    except (ssl.SSLError, OSError):
        return None
