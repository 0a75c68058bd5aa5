"""Where an agent's objects come from and where their statuses go: ``--source`` made into adapters.

Decides: what the option's forms mean: ``universal``, ``kubernetes`` or ``folder:DIR``.
Leaves to others: reading and writing (``adapters``).
Invariants: a wrong option ends the command before anything is started; what was opened is closed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from federation.cli.context import CommandError, fail
from federation.cli.exit_codes import ExitCode
from federation.model.base import ClusterId, ServiceName
from federation.ports import (
    Clock,
    DerivedObjects,
    EventSink,
    GatewayInfrastructure,
    ObjectSource,
    Seat,
    ServicePorts,
    StatusSink,
    Store,
)
from federation.wire.etcd_keys import Keys

if TYPE_CHECKING:
    from federation.adapters.kubernetes import Connection, KubernetesSourceSettings
    from federation.model.objects import ApiObject, ObjectSnapshot


class SourceKind(StrEnum):
    """Where objects come from."""

    UNIVERSAL = "universal"
    KUBERNETES = "kubernetes"
    FOLDER = "folder"


@dataclass(frozen=True, slots=True)
class LeaseOptions:
    """``--lease`` and ``--lease-identity``, checked."""

    namespace: str
    name: str
    identity: str


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """``--source``, checked. ``kubeconfig`` leads to an API server (``None``: as a Pod).

    ``lease`` says which of several agents of the cluster leads (``None``: it is the only one).
    """

    kind: SourceKind
    folder: Path = Path()
    kubeconfig: Path | None = None
    context: str | None = None
    lease: LeaseOptions | None = None


def source_options(
    text: str,
    *,
    kubeconfig: Path | None,
    context: str | None,
    lease: LeaseOptions | None = None,
) -> SourceOptions:
    """``--source`` as given; ends the command for what is not known or not there."""
    if text != SourceKind.KUBERNETES and lease is not None:
        fail("--lease goes with --source kubernetes, where the Lease is kept", ExitCode.USAGE)
    if text != SourceKind.KUBERNETES and (kubeconfig is not None or context is not None):
        fail("--kubeconfig and --kube-context go with --source kubernetes", ExitCode.USAGE)
    if context is not None and kubeconfig is None:
        fail("--kube-context is one of a file's; name it with --kubeconfig", ExitCode.USAGE)
    kind, _, path = text.partition(":")
    if kind == SourceKind.FOLDER and path:
        if not Path(path).exists():
            fail(f"--source: {path} does not exist", ExitCode.USAGE)
        return SourceOptions(SourceKind.FOLDER, Path(path))
    if text not in (SourceKind.KUBERNETES, SourceKind.UNIVERSAL):
        known = "universal, kubernetes or folder:DIR"
        fail(f'--source: "{text}" is not known; use {known}', ExitCode.USAGE)
    return SourceOptions(SourceKind(text), kubeconfig=kubeconfig, context=context, lease=lease)


@dataclass(frozen=True, slots=True)
class ObjectPorts:
    """The sides of a cluster's objects.

    ``instance`` is the cluster's own identity, ``derived`` takes what we derive for it,
    ``infrastructure`` what Gateways' own gateways are made of, ``service_ports`` the Gateways'
    ports of the Service in front of shared ones, ``events`` what people are told, ``seat`` says
    which of its agents leads; where the source has such a thing. ``leading`` are loops for while
    it leads; ``degraded`` tells what of the source may be out of date.
    """

    source: ObjectSource
    statuses: StatusSink
    instance: str | None = None
    derived: Mapping[type[ApiObject], DerivedObjects] | None = None
    infrastructure: GatewayInfrastructure | None = None
    service_ports: ServicePorts | None = None
    events: EventSink | None = None
    leading: Mapping[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)
    seat: Seat | None = None
    degraded: Callable[[], tuple[str, ...]] = tuple


@asynccontextmanager
async def opened(
    options: SourceOptions,
    *,
    store: Store,
    keys: Keys,
    cluster: ClusterId,
    clock: Clock,
    controller: str,
    clusterset: str,
    new: bool,
    gateway_service: ServiceName | None = None,
    gateways_in: str | None = None,
) -> AsyncGenerator[ObjectPorts, None]:
    """The adapters that ``options`` name. Raises ``CommandError`` without credentials.

    ``new``: the agent has no identity from before, and waits for the cluster's;
    ``gateway_service`` is the Service whose addresses will be asked for; ``gateways_in`` is the
    namespace of Gateways' own gateways, if all stand in one.
    """
    from federation.adapters.folder import FolderSettings, FolderSource
    from federation.adapters.kubernetes import ConnectionSettings, KubeconfigError, connected
    from federation.adapters.universal import UniversalSource, UniversalStatusSink

    in_store = UniversalStatusSink(store, keys, cluster, clock)
    match options.kind:
        case SourceKind.UNIVERSAL:
            yield ObjectPorts(UniversalSource(store, keys, cluster), in_store)
        case SourceKind.FOLDER:
            yield ObjectPorts(FolderSource(FolderSettings(options.folder)), in_store)
        case SourceKind.KUBERNETES:
            settings = ConnectionSettings(options.kubeconfig, options.context)
            try:
                async with connected(settings) as connection:
                    yield await _on_kubernetes(
                        connection,
                        clock,
                        new=new,
                        cluster=cluster,
                        lease=options.lease,
                        controller=controller,
                        clusterset=clusterset,
                        gateway_service=gateway_service,
                        gateways_in=gateways_in,
                    )
            except KubeconfigError as error:
                raise CommandError(str(error), ExitCode.USAGE) from error


async def _on_kubernetes(
    connection: Connection,
    clock: Clock,
    *,
    new: bool,
    cluster: ClusterId,
    lease: LeaseOptions | None,
    controller: str,
    clusterset: str,
    gateway_service: ServiceName | None,
    gateways_in: str | None,
) -> ObjectPorts:
    from federation.adapters.kubernetes import (
        CLUSTER_ID,
        CLUSTERSET,
        ClusterProperties,
        KubernetesDerivedObjects,
        KubernetesEventSink,
        KubernetesGatewayInfrastructure,
        KubernetesSeat,
        KubernetesServicePorts,
        KubernetesSource,
        KubernetesStatusSink,
        LeaseSettings,
        cluster_uid,
        not_leading,
    )
    from federation.agent.imports import DERIVED_KINDS

    seat, writing = None, connection
    if lease is not None:
        settings = LeaseSettings(lease.namespace, lease.name, lease.identity)
        seat = KubernetesSeat(connection, settings)
        # A hold that has run out while we did not notice writes nothing any more.
        writing = connection.fenced(partial(not_leading, seat))
    statuses = KubernetesStatusSink(writing, clock, controller=controller)
    source = KubernetesSource(connection, _read_nodes_for(gateway_service), saw=statuses.saw)
    return ObjectPorts(
        source,
        statuses,
        instance=await cluster_uid(connection, wait=new),
        derived={kind: KubernetesDerivedObjects(writing, kind) for kind in DERIVED_KINDS},
        infrastructure=KubernetesGatewayInfrastructure(writing, clock, namespace=gateways_in),
        service_ports=KubernetesServicePorts(writing),
        events=KubernetesEventSink(writing, clock, instance=cluster),
        leading={
            "cluster properties": partial(
                ClusterProperties(writing).keep, {CLUSTER_ID: cluster, CLUSTERSET: clusterset}
            ),
            "repair statuses": statuses.repair,
        },
        seat=seat,
        degraded=source.degraded,
    )


def _read_nodes_for(service: ServiceName | None) -> KubernetesSourceSettings:
    """Nodes are read where their addresses are the Service's, and nowhere else."""
    from federation.adapters.kubernetes import KubernetesSourceSettings
    from federation.derive.entrances import needs_nodes
    from federation.model.objects import Node

    if service is None:
        return KubernetesSourceSettings()

    def asked(objects: ObjectSnapshot) -> bool:
        return needs_nodes(objects, service)

    return KubernetesSourceSettings(on_demand={Node: asked})
