"""Addresses, HOST:PORT, and whether they are loopback."""

from __future__ import annotations

import ipaddress

from fedopt.errors import InvalidExperiment


def split_address(address: str, option: str) -> tuple[str, int]:
    """Host and port; InvalidExperiment if it is not an address."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) >= 2**16:
        raise InvalidExperiment(f"{option} {address}: an address is HOST:PORT, for example 192.0.2.1:9092")
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether the host is this machine, so that plaintext is safe."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
