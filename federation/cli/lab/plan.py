"""The plan of a lab: which clusters, processes, ports and paths there are.

Decides: names, ports and command lines of everything the lab runs, before anything runs.
Leaves to others: starting and killing (``processes``), certificates (``authority``), the objects
that each cluster begins with (``objects``).
Invariants: a plan is complete and frozen once the lab is up and is written to ``lab.json``; a
restored region runs the very same command lines on the very same ports.
"""

from __future__ import annotations

import random
import re
import socket
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path

from pydantic import Field

from federation.model.base import ClusterId, Region, Value

LOOPBACK = "127.0.0.1"
EASTWEST_PORT = 15444
LISTENER_PORTS = (80, 443, 8080, 8443, 9090, 15443, EASTWEST_PORT)
"""Gateway ports that manifests commonly name; each must be free at a gateway's offset."""
SERVICE_PORT = 9090
"""Port of every demo Service."""
PORTS = range(20_000, 32_000)
"""Where processes listen: below the ports that systems give to connections (from 32,768 on Linux,
49,152 on macOS), one of which would now and then take a planned port before its process has it."""
REGIONS_MAX = 8
REGION_LENGTH_MAX = 40
REGION_NAME = re.compile(rf"(?!-)[a-z0-9-]{{1,{REGION_LENGTH_MAX}}}(?<!-)", re.ASCII)

POD_NETWORK = "198.18.{cluster}.{number}"
"""Addresses of demo endpoints as EndpointSlices of an API server have them, which takes no loopback
address: of 198.18.0.0/15, kept for tests of network gear (RFC 2544), so that nothing is there."""

SERVICES = {
    "user-service": 3,
    "order-service": 2,
    "user-service-v1": 2,
    "user-service-v2": 2,
    "user-service-staging": 2,
    "user-read-service": 2,
    "user-read-service-v2": 2,
    "user-write-service": 2,
    "user-service-primary": 2,
    "user-service-secondary": 2,
}
"""Demo services (namespace ``app``, port 9090) and how many endpoints each has in each cluster."""


class Role(StrEnum):
    """What a process of the lab is."""

    ETCD = "etcd"
    RESOLVER = "resolver"
    AGENT = "agent"
    GATEWAY = "gateway"
    DEMO = "demo"
    RELAY = "relay"
    CLIENT = "client"
    CONSOLE = "console"
    KUBE_ETCD = "kube-etcd"
    KUBE_API = "kube-apiserver"
    KUBE_CONTROLLERS = "kube-controller-manager"


class ProcessPlan(Value):
    """One process: ``cluster`` is ``None`` for what belongs to no cluster."""

    name: str
    role: Role
    cluster: ClusterId | None = None
    command: tuple[str, ...]


class DemoEndpoint(Value):
    """One demo endpoint at ``address`` (``host:port``).

    ``pod`` is the address that stands for it in EndpointSlices, where that is another.
    """

    namespace: str
    service: str
    address: str
    pod: str | None = None


class DemoPlan(Value):
    """All demo endpoints of one cluster."""

    cluster: ClusterId
    endpoints: tuple[DemoEndpoint, ...]


class GatewayPlan(Value):
    """One gateway; its listeners' ports are the manifests' plus ``port_offset``."""

    name: str
    admin: str
    port_offset: int

    def listener(self, port: int) -> str:
        """Where the listener that manifests put on ``port`` really is."""
        return f"{LOOPBACK}:{port + self.port_offset}"

    @property
    def eastwest(self) -> str:
        """The east-west entrance as its own region reaches it."""
        return self.listener(EASTWEST_PORT)


class RelayRoute(Value):
    """A path that a relay carries: ``listen`` forwards to ``target``, which stands in ``region``.

    ``region`` is ``None`` for the path to etcd.
    """

    listen: str
    target: str
    region: Region | None = None


class RelayPlan(Value):
    """The relay that carries everything a region sends out, with its control address."""

    region: Region
    control: str
    routes: tuple[RelayRoute, ...]

    def etcd(self) -> str:
        """Where the region's processes reach etcd."""
        return next(route.listen for route in self.routes if route.region is None)


class KubernetesPlan(Value):
    """Where the API server of a cluster and its etcd listen (``host:port``)."""

    api: str
    etcd: str


class ClusterPlan(Value):
    """One cluster; in the lab each region has one cluster of the same name.

    ``kubernetes`` is its API server, ``None`` where its objects are kept in the federation's etcd.
    """

    name: ClusterId
    region: Region
    xds: str
    dns: str
    gateways: tuple[GatewayPlan, ...]
    demo: DemoPlan
    relay: RelayPlan
    kubernetes: KubernetesPlan | None = None


class LabPlan(Value):
    """The whole lab. ``latency_ms`` is added to a round trip between regions; ``console`` is where
    its page is.

    ``programs`` is the folder of Kubernetes' own servers where clusters have API servers.
    """

    directory: Path
    etcd: str
    etcd_peer: str
    console: str
    latency_ms: int = Field(ge=0, le=10_000)
    calls_per_second: int = Field(ge=0, le=10_000)
    clusters: tuple[ClusterPlan, ...]
    processes: tuple[ProcessPlan, ...]
    programs: Path | None = None

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig with a context for each cluster that has an API server."""
        return self.directory / "kubeconfig"

    @property
    def ca(self) -> Path:
        """The lab's certificate authority, which signed everything."""
        return self.directory / "pki" / "ca.pem"

    def cluster(self, region: str) -> ClusterPlan:
        """The cluster of ``region``; raises ``KeyError`` naming the regions there are."""
        for cluster in self.clusters:
            if region in (cluster.region, cluster.name):
                return cluster
        known = ", ".join(cluster.region for cluster in self.clusters)
        raise KeyError(f'the lab has no region "{region}"; its regions: {known}')


class _Ports:
    """Hands out free loopback ports, bound until the plan is made so that none comes twice."""

    def __init__(self, held: ExitStack) -> None:
        self._held = held

    def address(self) -> str:
        """An address whose port is free."""
        for port in random.sample(PORTS, 200):
            with ExitStack() as attempt:
                sock = attempt.enter_context(socket.socket())
                try:
                    sock.bind((LOOPBACK, port))
                except OSError:
                    continue
                self._held.push(attempt.pop_all())
                return f"{LOOPBACK}:{port}"
        raise OSError(
            f"no port of {PORTS.start} to {PORTS.stop - 1} is free on {LOOPBACK}; end what listens "
            "there, or a lab that runs already (`fedctl lab down`)"
        )

    def offset(self) -> int:
        """An offset at which all of ``LISTENER_PORTS`` are free."""
        for candidate in random.sample(range(2_000, 16_000), 200):
            with ExitStack() as attempt:
                try:
                    for port in LISTENER_PORTS:
                        sock = attempt.enter_context(socket.socket())
                        sock.bind((LOOPBACK, port + candidate))
                except OSError:
                    continue
                self._held.push(attempt.pop_all())
                return candidate
        raise OSError(
            "no port offset between 2000 and 16000 leaves the gateway ports free on 127.0.0.1; "
            "end what listens there, or a lab that runs already (`fedctl lab down`)"
        )


def lay_out(
    *,
    directory: Path,
    regions: tuple[str, ...],
    latency_ms: int,
    calls_per_second: int,
    programs: Path | None = None,
) -> LabPlan:
    """Lay out a lab of one cluster for each of ``regions``, without its processes.

    Ports are free at that moment; ``commands.with_processes`` adds what runs on them. With
    ``programs`` (the folder of Kubernetes' own servers) each cluster has an API server.

    Raises ``ValueError`` for fewer than one, more than eight, repeated or misspelt regions,
    ``OSError`` when no ports can be had.
    """
    if not 1 <= len(regions) <= REGIONS_MAX or len(set(regions)) != len(regions):
        got = ", ".join(regions) or "none"
        raise ValueError(f"--regions wants 1 to {REGIONS_MAX} different names, got {got}")
    for region in regions:
        if not REGION_NAME.fullmatch(region):
            raise ValueError(
                f'--regions: "{region}" is no region; write lower-case letters, digits and "-", '
                f"at most {REGION_LENGTH_MAX}, such as us-west-1"
            )
    with ExitStack() as held:
        ports = _Ports(held)
        etcd, etcd_peer, console = ports.address(), ports.address(), ports.address()
        gateways = {
            region: tuple(
                GatewayPlan(
                    name=f"gateway-{region}-{number}",
                    admin=ports.address(),
                    port_offset=ports.offset(),
                )
                for number in (1, 2)
            )
            for region in regions
        }
        clusters = tuple(
            ClusterPlan(
                name=ClusterId(region),
                region=Region(region),
                xds=ports.address(),
                dns=ports.address(),
                gateways=gateways[region],
                demo=_demo(region, ports, pods=number if programs else None),
                relay=_relay(region, etcd, gateways, ports),
                kubernetes=(
                    KubernetesPlan(api=ports.address(), etcd=ports.address()) if programs else None
                ),
            )
            for number, region in enumerate(regions)
        )
    return LabPlan(
        directory=directory,
        etcd=etcd,
        etcd_peer=etcd_peer,
        console=console,
        latency_ms=latency_ms,
        calls_per_second=calls_per_second,
        clusters=clusters,
        processes=(),
        programs=programs,
    )


def _demo(region: str, ports: _Ports, *, pods: int | None) -> DemoPlan:
    """Demo endpoints; ``pods`` is the number of the cluster where they have Pods' addresses."""
    services = [service for service, count in SERVICES.items() for _ in range(count)]

    def pod(number: int) -> str | None:
        if pods is None:
            return None
        return f"{POD_NETWORK.format(cluster=pods, number=number)}:{SERVICE_PORT}"

    return DemoPlan(
        cluster=ClusterId(region),
        endpoints=tuple(
            DemoEndpoint(namespace="app", service=service, address=ports.address(), pod=pod(number))
            for number, service in enumerate(services, start=1)
        ),
    )


def _relay(
    region: str, etcd: str, gateways: dict[str, tuple[GatewayPlan, ...]], ports: _Ports
) -> RelayPlan:
    routes = [RelayRoute(listen=ports.address(), target=etcd)]
    routes.extend(
        RelayRoute(listen=ports.address(), target=gateway.eastwest, region=Region(other))
        for other, there in gateways.items()
        if other != region
        for gateway in there
    )
    return RelayPlan(region=Region(region), control=ports.address(), routes=tuple(routes))
