"""Endpoints of a Service in this cluster.

Decides: which addresses serve: the ready ones; where none is ready, those that still serve while
they terminate, so that the last of them finish their work instead of being forgotten.
Leaves to others: health as gateways find it, draining (``upstreams``).
Invariants: no address that no EndpointSlice reports; each address once; sorted.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from federation.derive.compile.index import Index
from federation.model.base import ServiceName
from federation.model.objects import CoreServicePort, EndpointSlice
from federation.model.objects import Endpoint as SliceEndpoint
from federation.model.snapshot import Endpoint

Address = tuple[str, int]
_Found = dict[Address, Endpoint]

_CACHE_SIZE = 65_536
"""Addresses whose form is remembered; beyond it they are read again at each compilation."""

_SLICES_MAX = 16_384
"""Slices whose endpoints are remembered; beyond it the one read first is read again."""


def service_endpoints(
    index: Index, service: ServiceName, port: CoreServicePort
) -> tuple[Endpoint, ...]:
    """The endpoints behind ``port`` of ``service``."""
    ready: _Found = {}
    leaving: _Found = {}
    for entry in index.slices.get(service, ()):
        for number in _numbers(entry, port):
            of_slice = _remembered.of(entry.endpoints, number)
            ready.update(of_slice.ready)
            leaving.update(of_slice.leaving)
    found = ready or leaving
    return tuple([found[address] for address in sorted(found)])


@dataclass(frozen=True, slots=True)
class _OfSlice:
    """The endpoints of one slice: those that are ready, and those that leave and still serve."""

    ready: _Found
    leaving: _Found


class _Remembered:
    """The endpoints of slices, by the identity of what they were made of.

    Of 100,000 endpoints a change touches one slice: what is found for the others is not made again,
    and stays the same object, which later comparisons see at once. Memory: the slices remembered.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[Sequence[SliceEndpoint], _OfSlice]] = {}

    def of(self, endpoints: Sequence[SliceEndpoint], number: int) -> _OfSlice:
        key = (id(endpoints), number)
        known = self._known.get(key)
        if known is not None and known[0] is endpoints:
            return known[1]
        made = _OfSlice(
            ready=_made((entry for entry in endpoints if entry.ready), number),
            leaving=_made((entry for entry in endpoints if _still_serving(entry)), number),
        )
        if len(self._known) >= _SLICES_MAX:
            del self._known[next(iter(self._known))]
        self._known[key] = (endpoints, made)
        return made


_remembered = _Remembered()


def _made(endpoints: Iterable[SliceEndpoint], number: int) -> _Found:
    return {
        (address, number): Endpoint(host=address, port=number)
        for endpoint in endpoints
        for address in endpoint.addresses
        if is_address(address)
    }


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
