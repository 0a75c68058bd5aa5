"""Ports of imports: what is spoken there, and at which port of the gateways clients arrive.

Decides: whether a port is carried as HTTP/2, as HTTP/1.1, as TCP or not at all; the gateways' port
for each import port: the one that it has, else the first free one from a place that its name gives.
Leaves to others: where ports in use are kept (the derived Services say them as ``targetPort``),
listeners (``compile.import_listeners``).
Invariants: pure; a port that an import has stays, whatever else comes and goes, until it is outside
the range or somebody else's; the outcome does not depend on the order of what is asked; no two have
the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from federation.model.snapshot import Protocol

HTTP2_APP_PROTOCOLS = frozenset({"kubernetes.io/h2c", "grpc", "h2c", "http2"})
"""Values of ``appProtocol`` that mean HTTP/2 without TLS."""

HTTP1_APP_PROTOCOLS = frozenset({"kubernetes.io/ws", "http"})
"""Values of ``appProtocol`` that mean HTTP/1.1 without TLS, WebSockets included (GEP-1911)."""

_HTTP2_NAMES = frozenset({"grpc", "http2", "h2c"})
_HTTP1_NAMES = frozenset({"http"})


@dataclass(frozen=True, slots=True, order=True)
class PortKey:
    """A port of an import."""

    namespace: str
    service: str
    port: int


@dataclass(frozen=True, slots=True)
class PortRange:
    """Ports of the gateways that are for imports, ``first`` to ``last``; one listener each."""

    first: int = 20_000
    last: int = 29_999

    def __contains__(self, port: object) -> bool:
        """Whether ``port`` is one of them."""
        return isinstance(port, int) and self.first <= port <= self.last

    def __len__(self) -> int:
        """How many there are."""
        return self.last - self.first + 1


def carried_as(*, name: str, protocol: str, app_protocol: str | None) -> Protocol | None:
    """What gateways speak for a port of an import; ``None``: it is not carried (UDP, SCTP).

    A port says it by ``appProtocol``, or by the first part of its name (``grpc``, ``http2-web``);
    one that says nothing may be anything, so its connections go on as they are.
    """
    if protocol != "TCP":
        return None
    if app_protocol is not None:
        said = app_protocol.lower()
        if said in HTTP2_APP_PROTOCOLS:
            return Protocol.HTTP2
        return Protocol.HTTP1 if said in HTTP1_APP_PROTOCOLS else Protocol.TCP
    said = name.partition("-")[0].lower()
    if said in _HTTP2_NAMES:
        return Protocol.HTTP2
    return Protocol.HTTP1 if said in _HTTP1_NAMES else Protocol.TCP


def allocate(
    wanted: Iterable[PortKey],
    *,
    kept: Mapping[PortKey, int],
    taken: Collection[int],
    ports: PortRange,
) -> dict[PortKey, int]:
    """A port for each of ``wanted``, as far as there are any: the others are left out.

    ``kept`` are the ports that they have, ``taken`` those of others (Gateways' listeners).
    """
    ordered = sorted(set(wanted))
    used = set(taken)
    found: dict[PortKey, int] = {}
    for key in ordered:
        port = kept.get(key)
        if port is not None and port in ports and port not in used:
            found[key] = port
            used.add(port)
    for key in ordered:
        if key not in found:
            port = _free(key, used, ports)
            if port is None:
                break  # nobody after it gets one either
            found[key] = port
            used.add(port)
    return found


def _free(key: PortKey, used: Collection[int], ports: PortRange) -> int | None:
    """The first free port from the place that the key gives, around the whole range."""
    digest = hashlib.sha256(f"{key.namespace}/{key.service}:{key.port}".encode()).digest()
    start = int.from_bytes(digest[:8], "big") % len(ports)
    candidates = (ports.first + (start + step) % len(ports) for step in range(len(ports)))
    return next((port for port in candidates if port not in used), None)
