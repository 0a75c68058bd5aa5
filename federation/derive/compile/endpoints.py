"""Endpoints of a Service in this cluster.

Decides: which addresses serve: the ready ones; where none is ready, those that still serve while
they terminate, so that the last of them finish their work instead of being forgotten.
Leaves to others: health as gateways find it, draining (``upstreams``).
Invariants: no address that no EndpointSlice reports; each address once; sorted.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from federation.derive.compile.index import Index
from federation.model.base import ServiceName
from federation.model.objects import CoreServicePort, EndpointSlice
from federation.model.objects import Endpoint as SliceEndpoint
from federation.model.snapshot import Endpoint

Address = tuple[str, int]

_CACHE_SIZE = 65_536
"""Addresses whose form is remembered; beyond it they are read again at each compilation."""


def service_endpoints(
    index: Index, service: ServiceName, port: CoreServicePort
) -> tuple[Endpoint, ...]:
    """The endpoints behind ``port`` of ``service``."""
    ready: set[Address] = set()
    leaving: set[Address] = set()
    for entry in index.slices.get(service, ()):
        for number in _numbers(entry, port):
            for endpoint in entry.endpoints:
                addresses = {
                    (address, number) for address in endpoint.addresses if is_address(address)
                }
                if endpoint.ready:
                    ready |= addresses
                elif _still_serving(endpoint):
                    leaving |= addresses
    return tuple(Endpoint(host=host, port=number) for host, number in sorted(ready or leaving))


def _numbers(entry: EndpointSlice, port: CoreServicePort) -> tuple[int, ...]:
    # Slices repeat the Service's port by name; numbers are the endpoints' own (targetPort).
    return tuple(
        candidate.port
        for candidate in entry.ports
        if candidate.name == port.name
        and candidate.protocol == port.protocol
        and candidate.port is not None
    )


def _still_serving(endpoint: SliceEndpoint) -> bool:
    state = endpoint.conditions
    return state.terminating is True and state.serving is True


@lru_cache(maxsize=_CACHE_SIZE)
def is_address(address: str) -> bool:
    """Whether ``address`` is an IP address rather than a name."""
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True
