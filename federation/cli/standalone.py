"""``fedctl standalone``: one gateway from a folder of manifests, without etcd and without an agent.

Decides: what is printed: the ports in use, and objects that are refused or without effect, once.
Leaves to others: reading (``adapters.folder``), compiling (``derive``), traffic (``gateway``).
Invariants: a bad file or object stops no other; what worked before stays until it is replaced.
"""

from __future__ import annotations

import dataclasses
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from envoy.service.discovery.v3 import discovery_pb2

from federation.adapters.folder import FolderSettings, FolderSource
from federation.cli.context import CommandError, run
from federation.derive.compile import Compiled, CompileInputs, CompileSettings, compile_cluster
from federation.derive.exports import derive_facts
from federation.derive.resolve import resolve
from federation.discovery.catalog import Sealer
from federation.model.base import ClusterId, Region, ServiceName
from federation.model.conditions import Condition, ConditionStatus
from federation.model.facts import ExportFact, Member, ServicePolicyFact
from federation.model.objects import ObjectSnapshot
from federation.model.status import ObjectStatus
from federation.model.view import FederationView
from federation.wire.xds import NodeView, Renderer
from gateway.shell import FeedState
from gateway.status import State
from gateway.xds_translate import KIND_OF_TYPE, Kind, PieceId

if TYPE_CHECKING:
    from gateway.runtime import Core, Runtime

GOOD_WHEN_FALSE = frozenset(
    {"Conflicted", "Conflict", "InsecureFrontendValidationMode", "PartiallyInvalid"}
)
"""Conditions whose True is the bad news."""

PRINTED_MAX = 10_000
"""Messages remembered so as not to repeat them; beyond it all are printed again."""

app = typer.Typer()


@dataclasses.dataclass(frozen=True, slots=True)
class StandaloneSettings:
    """What ``fedctl standalone`` was asked to do."""

    manifests: Path
    cluster: ClusterId
    address: str
    port_offset: int
    workers: int
    admin: str
    gateway_classes: frozenset[str]


@app.command("standalone", epilog="Example: fedctl standalone --manifests ./manifests")
def standalone(
    manifests: Annotated[Path, typer.Option(help="Folder (or file) of manifests to serve.")],
    cluster: Annotated[str, typer.Option(help="Name of the cluster it acts as.")] = "standalone",
    address: Annotated[str, typer.Option(help="Address to bind listeners on.")] = "127.0.0.1",
    port_offset: Annotated[
        int,
        typer.Option(min=0, max=65535, help="Added to listeners' ports, for those below 1024."),
    ] = 20_000,
    workers: Annotated[
        int, typer.Option(min=1, max=256, help="Threads that move traffic; a core each is most.")
    ] = 1,
    admin: Annotated[str, typer.Option(help="HOST:PORT of the admin endpoint.")] = "127.0.0.1:0",
    gateway_class: Annotated[
        list[str] | None,
        typer.Option(help="Served gatewayClassName; may be given again. Default: istio."),
    ] = None,
) -> None:
    """Serve a folder of manifests by one gateway, and follow its changes."""
    settings = StandaloneSettings(
        manifests=manifests,
        cluster=ClusterId(cluster),
        address=address,
        port_offset=port_offset,
        workers=workers,
        admin=admin,
        gateway_classes=frozenset(gateway_class or ["istio"]),
    )
    run(_serve(settings))


async def _serve(settings: StandaloneSettings) -> None:
    import logging

    from gateway.driver import open_core
    from gateway.errors import GatewayError
    from gateway.logs import log_to_stderr
    from gateway.settings import CoreSettings

    log_to_stderr(logging.WARNING)
    try:
        place = str(settings.cluster)
        core = open_core(CoreSettings(cluster=place, region=place, workers=settings.workers))
    except GatewayError as failure:
        raise CommandError(str(failure)) from failure
    await serve(settings, core=core, say=typer.echo)


async def serve(settings: StandaloneSettings, *, core: Core, say: Callable[[str], None]) -> None:
    """Serve until stopped. Raises ``CommandError`` or ``PortError`` when it cannot start."""
    from gateway.admin import AdminError
    from gateway.shell import Shell, ShellSettings

    shell = Shell(
        ShellSettings(
            name=f"standalone-{settings.cluster}",
            cluster=settings.cluster,
            region=settings.cluster,
            admin=settings.admin,
            identity=None,
            drain_grace_s=5.0,
            environment=os.environ,
        ),
        core=core,
    )
    try:
        await shell.run(FolderFeed(settings, shell.runtime, say=say))
    except AdminError as failure:
        raise CommandError(str(failure)) from failure


class FolderFeed:
    """Feeds a gateway from a folder; implements the shell's ``Feed``."""

    def __init__(
        self, settings: StandaloneSettings, runtime: Runtime, *, say: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._runtime = runtime
        self._say = say
        self._printed: set[str] = set()
        self._renderer, self._sealer = Renderer(), Sealer()
        self._source = FolderSource(FolderSettings(settings.manifests))
        self._snapshots = self._source.snapshots()
        self._loaded = False
        self._loading = False
        self._problems: frozenset[str] = frozenset()

    async def boot(self) -> None:
        """Serve what the folder holds now. Raises ``FolderError``."""
        await self._load(await anext(self._snapshots))

    async def run(self) -> None:
        """Follow the folder, for ever. After a failure it can be run again, from the start."""
        current, self._snapshots = self._snapshots, self._source.snapshots()
        async with aclosing(current) as snapshots:
            async for objects in snapshots:
                await self._load(objects)

    async def leave(self) -> None:
        """Nobody has to be told."""

    def changed(self) -> None:
        """Say which ports serve now; nothing is kept on disk, the folder is."""
        if not self._loading:
            self._print({*self._problems, *_ports(self._runtime)})

    def state(self) -> FeedState:
        """In sync with the folder once it has been read."""
        return FeedState(State.IN_SYNC if self._loaded else State.STARTING, 0.0)

    async def _load(self, objects: ObjectSnapshot) -> None:
        compiled = compile_alone(objects, self._settings)
        self._problems = frozenset(_problems(objects, compiled))
        self._loading = True
        try:
            await self._runtime.replace(self._resources(compiled))
        finally:
            self._loading = False
        self._loaded = True
        self.changed()

    def _resources(self, compiled: Compiled) -> dict[Kind, list[discovery_pb2.Resource]]:
        settings = self._settings
        node = NodeView(address=settings.address, port_offset=settings.port_offset, shards=True)
        catalog = self._sealer.seal(self._renderer(compiled.snapshot, node), generation=1)
        return {
            KIND_OF_TYPE[resource_type]: [
                discovery_pb2.Resource(name=name, version=entry.version, resource=entry.body)
                for name, entry in entries.items()
            ]
            for resource_type, entries in catalog.types.items()
        }

    def _print(self, messages: set[str]) -> None:
        """Print what is new; what has gone is forgotten, so that it is told when it comes back."""
        for message in sorted(messages - self._printed):
            self._say(message)
        self._printed = messages if len(messages) <= PRINTED_MAX else set()


def compile_alone(objects: ObjectSnapshot, settings: StandaloneSettings) -> Compiled:
    """Compile as a clusterset of one: imports mean what this folder itself exports."""
    region = Region(settings.cluster)
    return compile_cluster(
        CompileInputs(
            cluster=settings.cluster,
            region=region,
            objects=objects,
            view=_view_alone(objects, settings.cluster, region),
            settings=CompileSettings(gateway_classes=settings.gateway_classes, eastwest_port=None),
        )
    )


def _view_alone(objects: ObjectSnapshot, cluster: ClusterId, region: Region) -> FederationView:
    facts = derive_facts(cluster=cluster, region=region, objects=objects)
    exports: Mapping[ServiceName, Mapping[ClusterId, ExportFact]] = {
        service: {cluster: fact} for service, fact in facts.exports.items()
    }
    policies: defaultdict[ServiceName, dict[ClusterId, ServicePolicyFact]] = defaultdict(dict)
    for (service, _), policy in facts.policies.items():
        policies[service][cluster] = policy
    view = FederationView(
        members={cluster: Member(cluster=cluster, region=region, instance="standalone")},
        exports=exports,
        policies=policies,
    )
    return dataclasses.replace(
        view, resolved=resolve(view, drains={}, previous={}, now_ms=0).services
    )


# What is printed.


def _ports(runtime: Runtime) -> Iterator[str]:
    for piece_id, message in runtime.refusals().items():
        yield f"{piece_id}: {message}"
    for name, error in runtime.listeners.items():
        piece = runtime.in_force.get(PieceId(Kind.LISTENERS, name))
        if piece is not None and error is None:
            scheme = "TLS" if piece.body["tls"] else "plain text"
            yield f"listening: {name} on {piece.body['address']}:{piece.body['port']} ({scheme})"
    if not runtime.listeners:
        yield "nothing to listen on: no Gateway of a served class has a listener that can be opened"


def _problems(objects: ObjectSnapshot, compiled: Compiled) -> Iterator[str]:
    for rejected in objects.rejected.values():
        yield rejected.message
    for key, status in compiled.statuses.items():
        for where, condition in _conditions(status):
            bad = (
                ConditionStatus.TRUE if condition.type in GOOD_WHEN_FALSE else ConditionStatus.FALSE
            )
            if condition.status is bad and condition.type != "Programmed":
                yield (
                    f"{key}{where}: {condition.type}={condition.status}, {condition.reason}: "
                    f"{condition.message}"
                )


def _conditions(status: ObjectStatus) -> Iterator[tuple[str, Condition]]:
    for condition in status.conditions:
        yield "", condition
    for listener in status.listeners:
        for condition in listener.conditions:
            yield f" listener {listener.name}", condition
    for parent in status.parents:
        for condition in parent.conditions:
            yield f" at {parent.parent_ref.name}", condition
    for ancestor in status.ancestors:
        for condition in ancestor.conditions:
            yield f" for {ancestor.ancestor_ref.name}", condition
