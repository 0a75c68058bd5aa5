"""Ports for what tests start."""

from __future__ import annotations

import socket

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
