"""Ports for what tests start."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

OFFSETS_FROM = 16_000
"""Below them labs pick theirs."""
CONNECTIONS_FROM = 32_768
"""First port that systems give to connections, one of which may take a port that was free."""

_given: set[int] = set()


def free_port() -> int:
    """A TCP port of the loopback that is free now and was not given out before in this run.

    The system may name a port again as soon as its probe is closed, so that two servers of one test
    would ask for the same; probes of ports already given are kept open until a new one turns up.
    """
    probes: list[socket.socket] = []
    try:
        for _ in range(256):
            probe = socket.socket()
            probes.append(probe)
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            if port not in _given:
                _given.add(port)
                return port
    finally:
        for probe in probes:
            probe.close()
    raise RuntimeError(
        "256 ports in a row were given out before in this run; are ports running out?"
    )


def free_offset(*listener_ports: int) -> int:
    """An offset at which all of ``listener_ports`` are free on the loopback."""
    offsets = range(OFFSETS_FROM, CONNECTIONS_FROM - max(listener_ports))
    for offset in random.sample(offsets, 200):
        with ExitStack() as held:
            try:
                for port in listener_ports:
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port + offset))
            except OSError:
                continue
            return offset
    raise RuntimeError(f"no offset in {offsets} leaves {listener_ports} free on 127.0.0.1")
