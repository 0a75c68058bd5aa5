"""Where an agent's objects come from and where their statuses go: ``--source`` made into adapters.

Decides: what the option's forms mean: ``universal``, ``kubernetes`` or ``folder:DIR``.
Leaves to others: reading and writing (``adapters``).
Invariants: a wrong option ends the command before anything is started; what was opened is closed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
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
    ServicePorts,
    StatusSink,
    Store,
)
from federation.wire.etcd_keys import Keys

if TYPE_CHECKING:
    from federation.adapters.kubernetes import KubernetesSourceSettings
    from federation.model.objects import ApiObject, ObjectSnapshot


class SourceKind(StrEnum):
    """Where objects come from."""

    UNIVERSAL = "universal"
    KUBERNETES = "kubernetes"
    FOLDER = "folder"


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """``--source``, checked. ``kubeconfig`` leads to an API server (``None``: as a Pod)."""

    kind: SourceKind
    folder: Path = Path()
    kubeconfig: Path | None = None
    context: str | None = None


def source_options(text: str, *, kubeconfig: Path | None, context: str | None) -> SourceOptions:
    """``--source`` as given; ends the command for what is not known or not there."""
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
    return SourceOptions(SourceKind(text), kubeconfig=kubeconfig, context=context)


@dataclass(frozen=True, slots=True)
class ObjectPorts:
    """The sides of a cluster's objects.

    ``instance`` is the cluster's own identity, ``derived`` takes what we derive for it,
    ``infrastructure`` what Gateways' own gateways are made of, ``service_ports`` the Gateways'
    ports of the Service in front of shared ones, ``events`` what people are told; where the source
    has such a thing.
    """

    source: ObjectSource
    statuses: StatusSink
    instance: str | None = None
    derived: Mapping[type[ApiObject], DerivedObjects] | None = None
    infrastructure: GatewayInfrastructure | None = None
    service_ports: ServicePorts | None = None
    events: EventSink | None = None


@asynccontextmanager
async def opened(
    options: SourceOptions,
    *,
    store: Store,
    keys: Keys,
    cluster: ClusterId,
    clock: Clock,
    controller: str,
    gateway_service: ServiceName | None = None,
    gateways_in: str | None = None,
) -> AsyncGenerator[ObjectPorts, None]:
    """The adapters that ``options`` name. Raises ``CommandError`` without credentials.

    ``gateway_service`` is the Service whose addresses will be asked for; ``gateways_in`` is the
    namespace of Gateways' own gateways, if all stand in one.
    """
    from federation.adapters.folder import FolderSettings, FolderSource
    from federation.adapters.kubernetes import (
        ConnectionSettings,
        KubeconfigError,
        KubernetesDerivedObjects,
        KubernetesEventSink,
        KubernetesGatewayInfrastructure,
        KubernetesServicePorts,
        KubernetesSource,
        KubernetesStatusSink,
        cluster_uid,
        connected,
    )
    from federation.adapters.universal import UniversalSource, UniversalStatusSink
    from federation.agent.imports import DERIVED_KINDS

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
                    sink = KubernetesStatusSink(connection, clock, controller=controller)
                    uid = await cluster_uid(connection)
                    derived = {
                        kind: KubernetesDerivedObjects(connection, kind) for kind in DERIVED_KINDS
                    }
                    source = KubernetesSource(connection, _read_nodes_for(gateway_service))
                    made = KubernetesGatewayInfrastructure(connection, clock, namespace=gateways_in)
                    added = KubernetesServicePorts(connection)
                    events = KubernetesEventSink(connection, clock, instance=cluster)
                    yield ObjectPorts(source, sink, uid, derived, made, added, events)
            except KubeconfigError as error:
                raise CommandError(str(error), ExitCode.USAGE) from error


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
