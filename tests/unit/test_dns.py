"""The DNS server: names of the clusterset by the specification, and misuse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest
from prometheus_client import CollectorRegistry

from federation.dns import (
    DnsMetrics,
    DnsServer,
    DnsSettings,
    DnsTable,
    HostRecord,
    ServiceRecord,
    build_table,
)
from federation.dns.server import reply_to
from federation.model.base import ClusterId, Region, ServiceName
from federation.model.facts import (
    EndpointsFact,
    ExportFact,
    ServicePort,
    ServiceType,
    SliceEndpoint,
    SlicePort,
)
from federation.model.objects import FederatedServiceImport, ObjectMeta, ObjectSnapshot
from federation.model.view import FederationView

USERS = ServiceName(namespace="app", name="user-service")
NAME = "user-service.app.svc.clusterset.local."
TABLE = DnsTable(
    services={
        USERS: ServiceRecord(
            addresses=("127.0.0.1", "127.0.0.2", "::1"),
            ports=(ServicePort(name="grpc", port=9090), ServicePort(port=9091)),
        )
    },
    serial=42,
)


def ask(name: str, rdtype: str = "A", table: DnsTable | None = TABLE) -> dns.message.Message:
    wire = reply_to(dns.message.make_query(name, rdtype).to_wire(), table, limit=1232)
    assert wire is not None
    return dns.message.from_wire(wire)


def values(reply: dns.message.Message) -> list[str]:
    return sorted(str(item) for rrset in reply.answer for item in rrset)


def test_addresses_of_a_service() -> None:
    assert values(ask(NAME)) == ["127.0.0.1", "127.0.0.2"]
    assert values(ask(NAME, "AAAA")) == ["::1"]
    assert values(ask(NAME.upper())) == ["127.0.0.1", "127.0.0.2"]
    assert ask(NAME).flags & dns.flags.AA


def test_srv_of_named_ports_only() -> None:
    reply = ask(f"_grpc._tcp.{NAME}", "SRV")
    assert values(reply) == [f"0 100 9090 {NAME}"]
    assert {rrset.rdtype for rrset in reply.additional} == {dns.rdatatype.A, dns.rdatatype.AAAA}
    assert ask(f"_other._tcp.{NAME}", "SRV").rcode() == dns.rcode.NXDOMAIN
    assert ask(f"_tcp.{NAME}", "SRV").rcode() == dns.rcode.NOERROR


def test_version_of_the_specification() -> None:
    reply = ask("dns-version.clusterset.local.", "TXT")
    assert values(reply) == ['"1.0.0"']
    assert reply.answer[0].ttl == 28_800


@pytest.mark.parametrize(
    "name",
    [
        "nope.app.svc.clusterset.local.",
        "user-service.other.svc.clusterset.local.",
        f"us-west-1.{NAME}",
        "other.clusterset.local.",
    ],
)
def test_what_is_not_there_is_nxdomain_with_soa(name: str) -> None:
    reply = ask(name)
    assert reply.rcode() == dns.rcode.NXDOMAIN
    assert [rrset.rdtype for rrset in reply.authority] == [dns.rdatatype.SOA]


@pytest.mark.parametrize("name", [NAME, "app.svc.clusterset.local.", "svc.clusterset.local."])
def test_no_record_of_that_type_is_not_nxdomain(name: str) -> None:
    reply = ask(name, "MX")
    assert reply.rcode() == dns.rcode.NOERROR
    assert not reply.answer
    assert [rrset.rdtype for rrset in reply.authority] == [dns.rdatatype.SOA]


def test_soa_serial_is_the_tables() -> None:
    assert values(ask("clusterset.local.", "SOA"))[0].split()[2] == "42"


@pytest.mark.parametrize(
    ("name", "rdtype"),
    [
        ("user-service.app.svc.cluster.local.", "A"),
        ("1.0.0.127.in-addr.arpa.", "PTR"),
        ("clusterset.local.", "AXFR"),
    ],
)
def test_what_is_not_ours_is_refused(name: str, rdtype: str) -> None:
    assert ask(name, rdtype).rcode() == dns.rcode.REFUSED


def test_an_unknown_table_is_no_answer_rather_than_no_name() -> None:
    assert ask(NAME, table=None).rcode() == dns.rcode.SERVFAIL


def test_what_is_no_query_is_not_answered() -> None:
    response = dns.message.make_response(dns.message.make_query(NAME, "A")).to_wire()
    assert reply_to(response, TABLE, limit=1232) is None
    assert reply_to(b"short", TABLE, limit=1232) is None


def test_garbage_is_a_format_error() -> None:
    query = dns.message.make_query(NAME, "A").to_wire()
    wire = reply_to(query[:20], TABLE, limit=1232)
    assert wire is not None
    assert dns.message.from_wire(wire).rcode() == dns.rcode.FORMERR


def test_unknown_edns_version() -> None:
    query = dns.message.make_query(NAME, "A", use_edns=1)
    wire = reply_to(query.to_wire(), TABLE, limit=1232)
    assert wire is not None
    assert dns.message.from_wire(wire).rcode() == dns.rcode.BADVERS


MANY = DnsTable(
    services={USERS: ServiceRecord(addresses=tuple(f"127.0.1.{n}" for n in range(1, 200)))}
)


def test_a_large_answer_is_truncated_by_what_the_client_takes() -> None:
    plain = dns.message.make_query(NAME, "A", use_edns=False)
    wire = reply_to(plain.to_wire(), MANY, limit=1232)
    assert wire is not None
    assert len(wire) <= 512
    assert dns.message.from_wire(wire).flags & dns.flags.TC


@dataclass
class Fixed:
    table: DnsTable | None


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    subject = DnsServer(DnsSettings(connections_max=2, idle_timeout_s=5.0), Fixed(MANY))
    await subject.start()
    yield subject
    await subject.stop()


async def test_truncated_over_udp_then_whole_over_tcp(server: DnsServer) -> None:
    query = dns.message.make_query(NAME, "A", use_edns=False)
    reply, by_tcp = await dns.asyncquery.udp_with_fallback(
        query, "127.0.0.1", port=server.port, timeout=10
    )
    assert by_tcp
    assert len(values(reply)) == 199


async def test_connections_are_limited(server: DnsServer) -> None:
    held = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]
    query = dns.message.make_query(NAME, "A")
    for _, writer in held:
        writer.write(len(query.to_wire()).to_bytes(2, "big") + query.to_wire())
    for reader, _ in held:
        await asyncio.wait_for(reader.readexactly(2), 10)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    assert await asyncio.wait_for(reader.read(), 10) == b""
    for _, open_writer in (*held, (reader, writer)):
        open_writer.close()
        await open_writer.wait_closed()


def test_table_names_services_and_imports() -> None:
    def export(cluster: str, kind: ServiceType, *ports: ServicePort) -> ExportFact:
        return ExportFact(
            cluster=ClusterId(cluster),
            region=Region(cluster),
            service=USERS,
            type=kind,
            ports=ports,
            ready=0,
            total=0,
            capacity=0,
            create_revision=1 if cluster == "b" else 2,
        )

    first = export("b", ServiceType.CLUSTER_SET_IP, ServicePort(name="grpc", port=9090))
    second = export(
        "a",
        ServiceType.HEADLESS,
        ServicePort(name="grpc", port=1),
        ServicePort(name="admin", port=2),
    )
    view = FederationView(exports={USERS: {first.cluster: first, second.cluster: second}})
    imported = FederatedServiceImport.model_validate(
        {
            "metadata": ObjectMeta(name="user-service-import", namespace="app"),
            "spec": {"ports": [{"port": 9090}]},
        }
    )
    objects = ObjectSnapshot(objects={imported.key: imported}, synced=True)
    table = build_table(view, objects, addresses=["127.0.0.1"])
    assert sorted(map(str, table.services)) == ["app/user-service", "app/user-service-import"]
    ports = table.services[USERS].ports
    assert [(port.name, port.port) for port in ports] == [("grpc", 9090), ("admin", 2)]


HEADLESS = DnsTable(
    services={
        USERS: ServiceRecord(
            addresses=("10.0.0.1", "10.0.0.2", "fd00::1"),
            hosts=(
                HostRecord(
                    "users-0",
                    ClusterId("east"),
                    ("10.0.0.1", "fd00::1"),
                    (ServicePort(name="grpc", port=9091),),
                ),
                HostRecord("10-0-0-2", ClusterId("west"), ("10.0.0.2",)),
            ),
        )
    }
)


def test_endpoints_of_a_headless_service_have_names() -> None:
    assert values(ask(NAME, table=HEADLESS)) == ["10.0.0.1", "10.0.0.2"]
    assert values(ask(f"users-0.east.{NAME}", table=HEADLESS)) == ["10.0.0.1"]
    assert values(ask(f"users-0.east.{NAME}", "AAAA", HEADLESS)) == ["fd00::1"]
    assert values(ask(f"10-0-0-2.west.{NAME}", table=HEADLESS)) == ["10.0.0.2"]
    below = ask(f"east.{NAME}", table=HEADLESS)
    assert (below.rcode(), below.answer) == (dns.rcode.NOERROR, [])
    for name in (f"users-0.west.{NAME}", f"north.{NAME}", f"users-1.east.{NAME}"):
        assert ask(name, table=HEADLESS).rcode() == dns.rcode.NXDOMAIN


def test_srv_of_the_service_itself_is_all_named_ports_once() -> None:
    both = DnsTable(
        services={
            USERS: ServiceRecord(
                ("127.0.0.1",),
                ports=(
                    ServicePort(name="tcp", port=42),
                    ServicePort(name="udp", port=42, protocol="UDP"),
                    ServicePort(port=43),
                ),
            )
        }
    )
    assert values(ask(NAME, "SRV", both)) == [f"0 100 42 {NAME}"]
    assert values(ask(NAME, "SRV", HEADLESS)) == [f"0 100 9091 users-0.east.{NAME}"]


def test_srv_of_a_headless_service_names_its_endpoints() -> None:
    reply = ask(f"_grpc._tcp.{NAME}", "SRV", HEADLESS)
    assert values(reply) == [f"0 100 9091 users-0.east.{NAME}"]
    assert {str(rrset.name) for rrset in reply.additional} == {f"users-0.east.{NAME}"}


def test_a_clusters_name_stands_before_no_cluster_set_ip() -> None:
    """KEP-1645, "DNS": `<clusterid>.<svc>.<ns>` must not be there."""
    for name in (f"east.{NAME}", f"users-0.east.{NAME}"):
        assert ask(name).rcode() == dns.rcode.NXDOMAIN


def headless_view(*endpoints: SliceEndpoint) -> FederationView:
    fact = ExportFact(
        cluster=ClusterId("east"),
        region=Region("east"),
        service=USERS,
        type=ServiceType.HEADLESS,
        ports=(ServicePort(name="grpc", port=90),),
        ready=1,
        total=1,
        capacity=1,
    )
    slices = EndpointsFact(
        cluster=ClusterId("east"),
        service=USERS,
        name="s",
        address_type="IPv4",
        ports=(SlicePort(name="grpc", port=9091),),
        endpoints=endpoints,
    )
    return FederationView(exports={USERS: {fact.cluster: fact}}, endpoints={USERS: (slices,)})


def test_a_headless_name_is_of_ready_endpoints() -> None:
    ready = SliceEndpoint(addresses=("10.0.0.1",), hostname="users-0")
    waiting = SliceEndpoint(addresses=("10.0.0.2",), hostname="users-1", ready=False)
    table = build_table(headless_view(ready, waiting), ObjectSnapshot(), addresses=["127.0.0.1"])
    assert values(ask(NAME, table=table)) == ["10.0.0.1"]
    assert values(ask(f"users-0.east.{NAME}", table=table)) == ["10.0.0.1"]
    empty = build_table(headless_view(waiting), ObjectSnapshot(), addresses=["127.0.0.1"])
    assert ask(NAME, table=empty).rcode() == dns.rcode.NXDOMAIN


async def test_what_is_asked_is_counted() -> None:
    registry = CollectorRegistry()
    server = DnsServer(DnsSettings(), Fixed(TABLE), DnsMetrics(registry))
    await server.start()
    try:
        for name in (NAME, f"none.{NAME}"):
            query = dns.message.make_query(name, "A")
            await dns.asyncquery.udp(query, "127.0.0.1", port=server.port, timeout=5)
        await dns.asyncquery.tcp(
            dns.message.make_query(NAME, "A"), "127.0.0.1", port=server.port, timeout=5
        )
    finally:
        await server.stop()
    count = registry.get_sample_value
    name = "federation_dns_queries_total"
    assert count(name, {"transport": "udp", "rcode": "NOERROR"}) == 1
    assert count(name, {"transport": "udp", "rcode": "NXDOMAIN"}) == 1
    assert count(name, {"transport": "tcp", "rcode": "NOERROR"}) == 1
