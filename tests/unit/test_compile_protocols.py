"""What version of HTTP a backend is spoken to, by its port's ``appProtocol`` (GEP-1911)."""

from __future__ import annotations

import pytest

from federation.derive.compile.backends import protocol_of
from federation.derive.compile.upstreams import UpstreamKind, upstream_ref
from federation.model.base import ServiceName
from federation.model.snapshot import Protocol

HTTP1, HTTP2 = Protocol.HTTP1, Protocol.HTTP2


@pytest.mark.parametrize(
    ("app_protocol", "grpc", "http"),
    [
        (None, HTTP2, HTTP1),
        ("kubernetes.io/h2c", HTTP2, HTTP2),
        ("grpc", HTTP2, HTTP2),
        ("H2C", HTTP2, HTTP2),
        ("kubernetes.io/ws", None, HTTP1),
        ("http", None, HTTP1),
        ("https", None, None),
        ("kubernetes.io/wss", None, None),
        ("tcp", None, None),
    ],
)
def test_the_version_by_port_and_route(
    app_protocol: str | None, grpc: Protocol | None, http: Protocol | None
) -> None:
    assert protocol_of(app_protocol, "GRPCRoute") is grpc
    assert protocol_of(app_protocol, "HTTPRoute") is http


def test_one_port_spoken_to_in_two_versions_is_two_upstreams() -> None:
    service = ServiceName(namespace="app", name="web")
    names = {
        upstream_ref(UpstreamKind.SERVICE, service, 80, protocol=protocol).name
        for protocol in (HTTP1, HTTP2)
    }
    assert names == {"service/app/web/80", "service/app/web/80:http1"}
