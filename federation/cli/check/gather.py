"""Asks everybody that ``fedctl check`` judges.

Decides: whom it asks what, how much at once, and how long one answer may take.
Leaves to others: judging (``judge``), reading objects (``objects``).
Invariants: nothing is changed anywhere; whoever does not answer is told and holds nobody up.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import aiohttp
import dns.asyncquery
import dns.exception
import dns.message
import dns.rcode
from cryptography import x509

from federation.adapters.etcd import health
from federation.cli.check import objects
from federation.cli.check.evidence import (
    ClockReading,
    Evidence,
    SeenAnswer,
    SeenCertificate,
    SeenGateway,
    SeenPeer,
)
from federation.cli.check.finding import Area
from federation.cli.context import Context
from federation.cli.federation_view import read_view
from federation.cli.gateways import (
    AdminClient,
    GatewayAt,
    GatewayAway,
    admin_client,
    gateways_or_nothing,
)
from federation.cli.progress import Steps
from federation.cli.release import release
from federation.model.view import FederationView
from federation.ports import PortError, StoreUnavailable
from federation.wire.etcd_keys import Keys

AT_ONCE = 16
"""Gateways asked at the same time."""

DNS_TIMEOUT_S = 2.0
NAMES_MAX = 50
"""Imports whose names are asked for, the first by name."""

HEARTBEAT_EVERY_S = 2.0
"""How old a heartbeat may be: agents beat as often."""

IDENTITY = "federation/identity"
TRUST = "federation/trust-bundle"


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for. ``dns`` and ``contexts`` are by cluster."""

    areas: Collection[Area]
    gateways: Sequence[str] = ()
    dns: Mapping[str, str] | None = None
    kubeconfig: Path | None = None
    contexts: Mapping[str, str | None] | None = None

    def wants(self, *areas: Area) -> bool:
        """Whether any of ``areas`` is asked for."""
        return any(area in self.areas for area in areas)


async def gather(context: Context, asked: Asked, steps: Steps) -> Evidence:
    """Everything that the areas asked for need."""
    loopback = all("127.0.0.1" in each or "localhost" in each for each in context.etcd)
    seen = Evidence(now_s=time.time(), release=release(), on_loopback=loopback)
    steps.step("etcd")
    seen = await _store(context, asked, seen)
    steps.step("gateways")
    seen = await _gateways(context, asked, seen)
    steps.step("names")
    if asked.dns and seen.view is not None and asked.wants(Area.DNS):
        seen = replace(seen, answers=await _names(asked.dns, seen.view))
    steps.step("objects")
    if asked.wants(Area.POLICIES, Area.ROUTES, Area.CRDS):
        seen = await objects.gather(context, seen, asked.kubeconfig, asked.contexts)
    steps.step("judging")
    return seen


async def _store(context: Context, asked: Asked, seen: Evidence) -> Evidence:
    try:
        async with context.open_store() as store:
            read = await read_view(store, Keys(context.prefix))
    except StoreUnavailable as error:
        notes = ". ".join((str(error), *getattr(error, "__notes__", ())))
        return replace(seen, etcd_away=notes)
    except PortError as error:
        return replace(seen, etcd_away=str(error))
    seen = replace(seen, view=read.view, leader=read.leader)
    if asked.wants(Area.ETCD):
        try:
            roles = sorted(read.view.members)
            key = Keys(context.prefix).state
            found_etcd = await health(context.etcd_settings(), roles=roles, key=key)
            seen = replace(seen, etcd=found_etcd)
        except PortError as error:
            seen = replace(seen, etcd_away=str(error))
    if asked.wants(Area.CLOCKS):
        found = [await _etcd_clock(endpoint) for endpoint in context.etcd]
        readings = [reading for reading in found if reading is not None]
        seen = replace(seen, clocks=(*readings, *heartbeat_clocks(read.view, time.time())))
    if asked.wants(Area.CERTIFICATES):
        seen = replace(seen, certificates=_own_certificates(context))
    return seen


async def _etcd_clock(endpoint: str) -> ClockReading | None:
    """By the date of an HTTP answer, which is of whole seconds; ``None`` where there is none."""
    if endpoint.startswith("https://"):
        return None  # wants our certificate; the members' clocks show in their certificates' use
    url = f"http://{endpoint.removeprefix('http://')}/version"
    began = time.time()
    try:
        timeout = aiohttp.ClientTimeout(total=2.0)
        async with aiohttp.ClientSession(timeout=timeout) as http, http.get(url) as answer:
            theirs = parsedate_to_datetime(answer.headers["Date"]).timestamp() + 0.5
    except (aiohttp.ClientError, OSError, TimeoutError, KeyError, ValueError):
        return None
    ended = time.time()
    ahead_s = theirs - (began + ended) / 2
    return ClockReading(f"etcd at {endpoint}", ahead_s, 0.5 + (ended - began) / 2)


def heartbeat_clocks(view: FederationView, now_s: float) -> list[ClockReading]:
    """Agents' clocks by their heartbeats, which are up to one interval old."""
    return [
        ClockReading(
            f"agent of {cluster}",
            beat.sent_ms / 1000 - now_s + HEARTBEAT_EVERY_S / 2,
            HEARTBEAT_EVERY_S / 2,
        )
        for cluster, beat in sorted(view.heartbeats.items())
        if beat.sent_ms
    ]


async def _gateways(context: Context, asked: Asked, seen: Evidence) -> Evidence:
    areas = (Area.GATEWAYS, Area.CERTIFICATES, Area.REACHABILITY, Area.VERSIONS, Area.CLOCKS)
    if not asked.wants(*areas):
        return seen
    known, why = await gateways_or_nothing(context, asked.gateways)
    turn = asyncio.Semaphore(AT_ONCE)
    async with admin_client() as client:

        async def one(at: GatewayAt) -> tuple[SeenGateway, ClockReading | None]:
            async with turn:
                return await _gateway(client, at, asked)

        found = await asyncio.gather(*(one(at) for at in known))
    clocks = [clock for _, clock in found if clock is not None]
    return replace(
        seen,
        gateways=tuple(gateway for gateway, _ in found),
        no_gateways=why,
        clocks=(*seen.clocks, *(clocks if asked.wants(Area.CLOCKS) else ())),
    )


async def _gateway(
    client: AdminClient, at: GatewayAt, asked: Asked
) -> tuple[SeenGateway, ClockReading | None]:
    began = time.time()
    try:
        ready = await client.get(at, "/ready")
    except GatewayAway as away:
        return SeenGateway(at, why=str(away)), None
    ended = time.time()
    at = GatewayAt(at.cluster or str(ready.get("cluster", "")), str(ready["name"]), at.admin)
    gateway, clock = SeenGateway(at, ready=ready), None
    if "clock_s" in ready:
        ahead_s = float(ready["clock_s"]) - (began + ended) / 2
        clock = ClockReading(f"gateway {at}", ahead_s, (ended - began) / 2)
    try:
        if asked.wants(Area.CERTIFICATES):
            gateway = _with_certificates(gateway, await client.get(at, "/certificates"))
        if asked.wants(Area.REACHABILITY):
            gateway = _with_peers(gateway, await client.get(at, "/peers"))
    except GatewayAway as away:
        gateway = replace(gateway, why=str(away))
    return gateway, clock


def _with_certificates(gateway: SeenGateway, told: list[Mapping[str, Any]]) -> SeenGateway:
    others: list[SeenCertificate] = []
    for entry in told:
        name = str(entry["secret"])
        where = f"{gateway.at} {name}"
        chain = [_told(where, each) for each in entry["certificate"]]
        authorities = tuple(_told(f"{where} (authority)", each) for each in entry["authorities"])
        if name == IDENTITY and chain:
            gateway = replace(gateway, identity=chain[0])
            others += chain[1:]
        elif name == TRUST:
            gateway = replace(gateway, trusted=authorities)
        else:
            others += [*chain, *authorities]
    return replace(gateway, others=tuple(others))


def _told(where: str, each: Mapping[str, Any]) -> SeenCertificate:
    if "unreadable" in each:
        return SeenCertificate(where, "", "", 0, 0, unreadable=str(each["unreadable"]))
    return SeenCertificate(
        where=where,
        subject=str(each["subject"]),
        issuer=str(each["issuer"]),
        not_before_s=dt.datetime.fromisoformat(each["not_before"]).timestamp(),
        not_after_s=dt.datetime.fromisoformat(each["not_after"]).timestamp(),
        uris=tuple(each["uris"]),
        sha256=str(each["sha256"]),
        pem=str(each["pem"]),
    )


def _with_peers(gateway: SeenGateway, told: Mapping[str, Any]) -> SeenGateway:
    peers = tuple(
        SeenPeer(
            cluster=str(each["cluster"]),
            address=str(each["address"]),
            why=str(each["why"] or ""),
            down=bool(each["down"]),
        )
        for each in told["peers"]
    )
    return replace(gateway, peers=peers)


def _own_certificates(context: Context) -> tuple[SeenCertificate, ...]:
    """The PEM files with which this command reaches etcd."""
    files = (context.tls.authority, context.tls.certificate)
    return tuple(each for path in files if path is not None for each in _of_file(path))


def _of_file(path: Path) -> Iterable[SeenCertificate]:
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        return [SeenCertificate(str(path), "", "", 0, 0, unreadable=str(error))]
    return [
        SeenCertificate(
            where=str(path),
            subject=each.subject.rfc4514_string(),
            issuer=each.issuer.rfc4514_string(),
            not_before_s=each.not_valid_before_utc.timestamp(),
            not_after_s=each.not_valid_after_utc.timestamp(),
        )
        for each in found
    ]


async def _names(servers: Mapping[str, str], view: FederationView) -> tuple[SeenAnswer, ...]:
    """What each server says of each import's name."""
    names = [f"{it.name}.{it.namespace}.svc.clusterset.local" for it in _imports(view)]
    asked = [
        _name(cluster, servers[cluster], name) for cluster in sorted(servers) for name in names
    ]
    return tuple(await asyncio.gather(*asked))


def _imports(view: FederationView) -> list[Any]:
    return sorted(view.exports, key=str)[:NAMES_MAX]


async def _name(cluster: str, server: str, name: str) -> SeenAnswer:
    host, _, port = server.rpartition(":")
    query = dns.message.make_query(name, "A")
    fail: Callable[[str], SeenAnswer] = lambda why: SeenAnswer(cluster, server, name, why=why)  # noqa: E731
    try:
        answer = await dns.asyncquery.udp(query, host, timeout=DNS_TIMEOUT_S, port=int(port))
    except dns.exception.Timeout:
        return fail(f"no answer within {DNS_TIMEOUT_S:g} s")
    except (OSError, dns.exception.DNSException) as error:
        return fail(str(error))
    if answer.rcode() != dns.rcode.NOERROR:
        return fail(dns.rcode.to_text(answer.rcode()))
    found = tuple(str(each) for rrset in answer.answer for each in rrset)
    return SeenAnswer(cluster, server, name, found) if found else fail("no address")
