"""Ports of imports at the gateways: kept, distinct, the same in whatever order they are asked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.derive.mcs_ports import PortKey, PortRange, allocate, carried_as
from federation.model.snapshot import Protocol

FEW = PortRange(20_000, 20_009)
keys = st.builds(
    PortKey, st.sampled_from(["a", "b"]), st.sampled_from(["s", "t", "u"]), st.integers(1, 4)
)
ports = st.integers(19_998, 20_012)


@pytest.mark.parametrize(
    ("name", "protocol", "app_protocol", "carried"),
    [
        ("grpc", "TCP", None, Protocol.HTTP2),
        ("grpc-users", "TCP", None, Protocol.HTTP2),
        ("http2", "TCP", None, Protocol.HTTP2),
        ("http", "TCP", None, Protocol.HTTP1),
        ("http-web", "TCP", None, Protocol.HTTP1),
        ("httpd", "TCP", None, Protocol.TCP),
        ("", "TCP", None, Protocol.TCP),
        ("tcp", "TCP", None, Protocol.TCP),
        ("tcp", "TCP", "kubernetes.io/h2c", Protocol.HTTP2),
        ("grpc", "TCP", "mysql", Protocol.TCP),
        ("grpc", "TCP", "kubernetes.io/ws", Protocol.HTTP1),
        ("dns", "UDP", None, None),
        ("grpc", "SCTP", None, None),
    ],
)
def test_what_a_port_is_carried_as(
    name: str, protocol: str, app_protocol: str | None, carried: Protocol | None
) -> None:
    assert carried_as(name=name, protocol=protocol, app_protocol=app_protocol) is carried


@given(
    wanted=st.lists(keys, max_size=14),
    kept=st.dictionaries(keys, ports),
    taken=st.sets(ports),
    order=st.randoms(use_true_random=False),
)
def test_ports_are_distinct_in_range_and_free_whatever_the_order(
    wanted: list[PortKey], kept: dict[PortKey, int], taken: set[int], order: object
) -> None:
    found = allocate(wanted, kept=kept, taken=taken, ports=FEW)
    assert len(set(found.values())) == len(found)
    assert all(port in FEW and port not in taken for port in found.values())
    free = len([port for port in range(FEW.first, FEW.last + 1) if port not in taken])
    assert len(found) == min(free, len(set(wanted)))
    shuffled = list(wanted)
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert allocate(shuffled, kept=kept, taken=taken, ports=FEW) == found


@given(wanted=st.sets(keys, max_size=9), more=st.sets(keys, max_size=9), less=st.sets(keys))
def test_what_an_import_has_it_keeps(
    wanted: set[PortKey], more: set[PortKey], less: set[PortKey]
) -> None:
    first = allocate(wanted, kept={}, taken=(), ports=FEW)
    second = allocate((wanted | more) - less, kept=first, taken=(), ports=FEW)
    assert all(second[key] == port for key, port in first.items() if key not in less)


def test_a_port_that_a_gateway_took_is_given_up() -> None:
    key = PortKey("app", "users", 80)
    (port,) = allocate([key], kept={}, taken=(), ports=FEW).values()
    (other,) = allocate([key], kept={key: port}, taken=[port], ports=FEW).values()
    assert other != port
