"""Answers to DNS queries for ``clusterset.local``, as a function of the query and the table.

Decides: the answer, by the multi-cluster DNS specification (KEP-1645): A and AAAA of a service, SRV
of its named ports, the zone's version; of a headless service A and AAAA of each endpoint by host
name and cluster; no PTR, and no name with a cluster in it for a ClusterSetIP.
Leaves to others: sockets and sizes (``server``), what is in the table (``table``).
Invariants: pure; outside its zone it refuses; negative answers carry the SOA, so that they may be
cached; a table that is not known yet is SERVFAIL, never "no such name".
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from federation.dns.table import DnsTable, ServiceRecord
from federation.model.base import ServiceName
from federation.model.facts import ServicePort

ZONE = dns.name.from_text("clusterset.local.")
SERVICES = dns.name.from_text("svc.clusterset.local.")
VERSION = dns.name.from_text("dns-version.clusterset.local.")
SERVER = dns.name.from_text("ns.dns.clusterset.local.")

ADDRESS_TTL_S = 5
"""Short, since gateways come and go; a client that asks more often is served from memory anyway."""

VERSION_TTL_S = 28_800
"""The specification's own number."""

UDP_PAYLOAD = 1232
"""What fits an IPv6 path of 1280 bytes without fragments (DNS flag day 2020)."""

_ADDRESSES = (dns.rdatatype.A, dns.rdatatype.AAAA)
_TRANSFERS = (dns.rdatatype.AXFR, dns.rdatatype.IXFR)


def answer(query: dns.message.Message, table: DnsTable | None) -> dns.message.Message:
    """The answer to a well-formed ``query``."""
    reply = dns.message.make_response(query, our_payload=UDP_PAYLOAD)
    if query.edns > 0:
        reply.set_rcode(dns.rcode.BADVERS)
    elif query.opcode() != dns.opcode.QUERY:
        reply.set_rcode(dns.rcode.NOTIMP)
    elif len(query.question) != 1:
        reply.set_rcode(dns.rcode.FORMERR)
    else:
        _answer_question(reply, query.question[0], table)
    return reply


def _answer_question(
    reply: dns.message.Message, question: dns.rrset.RRset, table: DnsTable | None
) -> None:
    ours = question.name.is_subdomain(ZONE)
    if not ours or question.rdclass != dns.rdataclass.IN or question.rdtype in _TRANSFERS:
        reply.set_rcode(dns.rcode.REFUSED)
        return
    if table is None:
        reply.set_rcode(dns.rcode.SERVFAIL)
        return
    reply.flags |= dns.flags.AA
    records = _records(question.name, table, rotation=reply.id)
    if records is None:
        reply.set_rcode(dns.rcode.NXDOMAIN)
    for record in records or ():
        if question.rdtype in (record.rdtype, dns.rdatatype.ANY):
            reply.answer.append(record)
    if not reply.answer:
        reply.authority.append(_soa(table))
    elif question.rdtype == dns.rdatatype.SRV:
        for target in dict.fromkeys(item.target for found in reply.answer for item in found):
            found = _records(target, table, rotation=reply.id) or []
            reply.additional += [record for record in found if record.rdtype in _ADDRESSES]


def _records(
    name: dns.name.Name, table: DnsTable, *, rotation: int
) -> list[dns.rrset.RRset] | None:
    """All records of ``name``; empty if only names below it exist, ``None`` if it does not."""
    if name == ZONE:
        return [_soa(table), _rrset(name, ADDRESS_TTL_S, "NS", [str(SERVER)])]
    if name == VERSION:
        return [_rrset(name, VERSION_TTL_S, "TXT", ['"1.0.0"'])]
    if name in (SERVICES, SERVER, SERVER.parent()):
        return []
    if not name.is_subdomain(SERVICES):
        return None
    labels = [
        label.decode("ascii", "replace").lower() for label in name.relativize(SERVICES).labels
    ]
    return _below_services(name, labels, table, rotation)


def _below_services(
    name: dns.name.Name, labels: Sequence[str], table: DnsTable, rotation: int
) -> list[dns.rrset.RRset] | None:
    if len(labels) == 1:
        return [] if table.has_namespace(labels[0]) else None
    service, namespace = labels[-2:]
    record = table.services.get(ServiceName(namespace=namespace, name=service))
    if record is None:
        return None
    match list(labels[:-2]):
        case []:
            return [*_addresses(name, record.addresses, rotation), *_every_port(name, record)]
        case [protocol] if any(_protocol(port.protocol) == protocol for port in _named(record)):
            return []
        case [cluster] if any(host.cluster == cluster for host in record.hosts):
            return []
        case [port_name, protocol] if protocol.startswith("_"):
            return _service_port(name, record, port_name, protocol)
        case [hostname, cluster]:
            return _host(name, record, hostname, cluster)
        case _:
            return None


def _host(
    name: dns.name.Name, record: ServiceRecord, hostname: str, cluster: str
) -> list[dns.rrset.RRset] | None:
    for host in record.hosts:
        if (host.hostname, host.cluster) == (hostname, cluster):
            return _addresses(name, host.addresses, rotation=0)
    return None


def _addresses(name: dns.name.Name, given: Sequence[str], rotation: int) -> list[dns.rrset.RRset]:
    """A and AAAA, begun at another address for each query, so that clients spread."""
    found: dict[int, list[str]] = {4: [], 6: []}
    for address in given:
        found[ipaddress.ip_address(address).version].append(address)
    records = []
    for version, rdtype in ((4, "A"), (6, "AAAA")):
        addresses = found[version]
        if addresses:
            start = rotation % len(addresses)
            rotated = addresses[start:] + addresses[:start]
            records.append(_rrset(name, ADDRESS_TTL_S, rdtype, rotated))
    return records


def _service_port(
    name: dns.name.Name, record: ServiceRecord, port_name: str, protocol: str
) -> list[dns.rrset.RRset] | None:
    service = dns.name.Name(name.labels[2:])
    found = [
        where
        for port, where in _places(service, record)
        if (f"_{port.name}", _protocol(port.protocol)) == (port_name, protocol)
    ]
    return [_rrset(name, ADDRESS_TTL_S, "SRV", found)] if found else None


def _every_port(name: dns.name.Name, record: ServiceRecord) -> list[dns.rrset.RRset]:
    """SRV of the service itself: all its named ports, as clusters' own DNS answers it too."""
    found = list(dict.fromkeys(where for _, where in _places(name, record)))
    return [_rrset(name, ADDRESS_TTL_S, "SRV", found)] if found else []


def _places(service: dns.name.Name, record: ServiceRecord) -> Iterator[tuple[ServicePort, str]]:
    """Named ports as SRV has them: of the service's name, or of its endpoints' at their own ports.

    Priority before weight, as RFC 2782 has it on the wire.
    """
    targets = [(_below(service, host.hostname, host.cluster), host.ports) for host in record.hosts]
    for target, ports in targets or [(service, record.ports)]:
        for port in ports:
            if port.name:
                yield port, f"0 100 {port.port} {target}"


def _below(name: dns.name.Name, *labels: str) -> dns.name.Name:
    return dns.name.Name((*(label.encode() for label in labels), *name.labels))


def _named(record: ServiceRecord) -> list[ServicePort]:
    of_hosts = (port for host in record.hosts for port in host.ports)
    return [port for port in (*record.ports, *of_hosts) if port.name]


def _protocol(protocol: str) -> str:
    return f"_{protocol.lower()}"


def _soa(table: DnsTable) -> dns.rrset.RRset:
    contact = f"hostmaster.{ZONE}"
    numbers = f"{table.serial} 7200 1800 86400 {ADDRESS_TTL_S}"
    return _rrset(ZONE, ADDRESS_TTL_S, "SOA", [f"{SERVER} {contact} {numbers}"])


def _rrset(name: dns.name.Name, ttl_s: int, rdtype: str, values: Sequence[str]) -> dns.rrset.RRset:
    return dns.rrset.from_text_list(name, ttl_s, "IN", rdtype, list(values))
