"""``fedctl agent``: the agent of one cluster, with its xDS server and its DNS.

Decides: which adapters the agent runs on, what its options mean, how it stops.
Leaves to others: the agent (``agent``), xDS (``discovery``), names (``dns``).
Invariants: a wrong option ends the command before anything is started; SIGTERM and SIGINT end it
cleanly with code 0; losing etcd does not end it.
"""

from __future__ import annotations

import asyncio
import json
import platform
import re
import signal
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from federation.cli.agent_gateways import GatewayMode, checked_template
from federation.cli.agent_identity import told_name
from federation.cli.agent_memory import keep_memory_together
from federation.cli.agent_objects import LeaseOptions, SourceOptions, opened, source_options
from federation.cli.context import CommandError, Context, current, run
from federation.cli.release import release
from federation.cli.telemetry import OTLP_OPTION, otlp_settings

if TYPE_CHECKING:
    from federation.discovery import TlsFiles
    from federation.model.base import ServiceName
    from federation.model.infrastructure import GatewayTemplate
    from federation.ports import Store
    from federation.telemetry.otlp import OtlpSettings

app = typer.Typer()

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_ADDRESS = re.compile(r"(.+):(\d{1,5})")
_PORTS = re.compile(r"(\d{1,5})-(\d{1,5})")


@dataclass(frozen=True, slots=True)
class XdsTls:
    """Files of mutual TLS on the xDS port, and the SPIFFE ids let in."""

    certificate: Path
    private_key: Path
    client_ca: Path
    client_ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """What ``fedctl agent`` was asked to do, checked."""

    cluster: str
    region: str
    source: SourceOptions
    xds: str
    dns: str | None
    health: str | None
    state_dir: Path
    peer_dial: dict[str, str]
    endpoint_dial: dict[str, str]
    gateway_classes: frozenset[str]
    gateway_service: tuple[str, str] | None = None
    import_ports: tuple[int, int] = (20_000, 29_999)
    xds_tls: XdsTls | None = None
    ratelimit_redis: str | None = None
    gateway_template: GatewayTemplate | None = None
    otlp: OtlpSettings | None = None


@app.command("agent", epilog="Example: fedctl agent --cluster us-west-1 --region us-west-1")
def agent(
    ctx: typer.Context,
    region: Annotated[str, typer.Option(help="Failure domain that the cluster stands in.")],
    cluster: Annotated[
        str | None,
        typer.Option(
            help="Name of this cluster, unique in the clusterset. Default on Kubernetes: the "
            "ClusterProperty cluster.clusterset.k8s.io.",
            show_default=False,
        ),
    ] = None,
    source: Annotated[
        str,
        typer.Option(
            help="Where objects come from: `universal` (etcd), `kubernetes` or `folder:DIR`."
        ),
    ] = "universal",
    kubeconfig: Annotated[
        Path | None,
        typer.Option(help="Kubeconfig for `--source kubernetes`; without it: the Pod's account."),
    ] = None,
    kube_context: Annotated[
        str | None, typer.Option(help="Context of the kubeconfig; default: its current one.")
    ] = None,
    xds: Annotated[
        str, typer.Option(help="HOST:PORT to serve xDS on, for this cluster's gateways.")
    ] = "127.0.0.1:15010",
    xds_cert: Annotated[
        Path | None, typer.Option(help="PEM: certificate of the xDS port; mutual TLS when given.")
    ] = None,
    xds_key: Annotated[Path | None, typer.Option(help="PEM: the key to it.")] = None,
    xds_client_ca: Annotated[
        Path | None, typer.Option(help="PEM: authorities that sign the gateways' certificates.")
    ] = None,
    xds_client_id: Annotated[
        list[str] | None,
        typer.Option(
            help="SPIFFE id let in by xDS; may be given again. Default: this cluster's gateways.",
            show_default=False,
        ),
    ] = None,
    dns: Annotated[
        str | None, typer.Option(help="HOST:PORT to answer clusterset DNS on; without it: none.")
    ] = None,
    health: Annotated[
        str | None,
        typer.Option(
            help="HOST:PORT to serve /healthz, /readyz and /metrics on; without it: nowhere."
        ),
    ] = None,
    state_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the agent's identity and last good state.", show_default=False
        ),
    ] = None,
    peer_dial: Annotated[
        Path | None,
        typer.Option(help="JSON map from advertised to dialled peer addresses (NAT, relays)."),
    ] = None,
    endpoint_dial: Annotated[
        Path | None,
        typer.Option(
            help="JSON map from endpoint addresses, as EndpointSlices have them, to those that "
            "gateways dial (NAT)."
        ),
    ] = None,
    gateway_class: Annotated[
        list[str] | None,
        typer.Option(help="Served gatewayClassName; may be given again. Default: istio."),
    ] = None,
    gateway_service: Annotated[
        str | None,
        typer.Option(
            help="NAMESPACE/NAME of the Service in front of the gateways. Other clusters are given "
            "its addresses at the port named `east-west`; without it those of connected gateways.",
            show_default=False,
        ),
    ] = None,
    gateway_mode: Annotated[
        GatewayMode,
        typer.Option(
            help="Who serves Gateways: gateways that all share, or a Deployment and a Service made "
            "for each."
        ),
    ] = GatewayMode.SHARED,
    gateway_template: Annotated[
        Path | None,
        typer.Option(
            help="YAML with the Deployment (and Service) that dedicated gateways are made from.",
            show_default=False,
        ),
    ] = None,
    import_ports: Annotated[
        str,
        typer.Option(
            help="FIRST-LAST: ports of the gateways that MCS imports are reached at, one for each "
            "port of an import; they want --gateway-service."
        ),
    ] = "20000-29999",
    lease: Annotated[
        str | None,
        typer.Option(
            help="NAMESPACE/NAME of the Lease by which several agents of the cluster know which of "
            "them writes; the others serve their gateways all the same. Without it: one agent.",
            show_default=False,
        ),
    ] = None,
    lease_identity: Annotated[
        str | None,
        typer.Option(help="This agent's name in the Lease; default: the host's, so the Pod's."),
    ] = None,
    ratelimit_redis: Annotated[
        str | None,
        typer.Option(
            envvar="FEDERATION_RATELIMIT_REDIS",
            help="URL of a Redis or Valkey (redis://, rediss://, unix://) through which clusters "
            "share Global rate limits; without it each cluster has the whole limit.",
            show_default=False,
        ),
    ] = None,
    otlp: Annotated[str | None, OTLP_OPTION] = None,
) -> None:
    """Run the agent of a cluster: publish its exports, serve its gateways, write its statuses."""
    objects = source_options(
        source,
        kubeconfig=kubeconfig,
        context=kube_context,
        lease=_lease_options(lease, lease_identity),
    )
    cluster = checked_name("--cluster", cluster or told_name(objects))
    options = AgentOptions(
        cluster=cluster,
        region=checked_name("--region", region),
        source=objects,
        xds=checked_address("--xds", xds),
        dns=checked_address("--dns", dns) if dns is not None else None,
        health=checked_address("--health", health) if health is not None else None,
        state_dir=state_dir or Path.home() / ".local/state/federation/agent" / cluster,
        peer_dial=_read_dial("--peer-dial", peer_dial),
        endpoint_dial=_read_dial("--endpoint-dial", endpoint_dial),
        gateway_classes=frozenset(gateway_class or ["istio"]),
        gateway_service=(
            checked_object("--gateway-service", gateway_service) if gateway_service else None
        ),
        import_ports=_checked_ports("--import-ports", import_ports),
        xds_tls=_xds_tls(xds_cert, xds_key, xds_client_ca, xds_client_id),
        ratelimit_redis=ratelimit_redis,
        gateway_template=checked_template(gateway_mode, gateway_template, source=source),
        otlp=otlp_settings(otlp),
    )
    keep_memory_together()
    run(_run_agent(current(ctx), options))


async def _run_agent(context: Context, options: AgentOptions) -> None:
    from federation.agent import NameTakenError, StateDirError
    from federation.discovery import DiscoveryError
    from gateway.logs import log_to_stderr

    log_to_stderr()
    try:
        async with context.open_store() as store:
            await until_told_to_stop(serve(store, context.prefix, options))
    except (NameTakenError, StateDirError, DiscoveryError) as error:
        raise CommandError(str(error)) from error


async def until_told_to_stop(work: Awaitable[None]) -> None:
    """Await ``work`` until it ends, or SIGTERM or SIGINT asks for the end."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()

    def stop() -> None:
        stopped.set()
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        await task
    except asyncio.CancelledError:
        if not stopped.is_set():
            raise
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def serve(store: Store, prefix: str, options: AgentOptions) -> None:
    """Wire the agent to its adapters and run it until cancelled."""
    from federation.adapters.clock import SystemClock
    from federation.adapters.hosts import SystemHostNames
    from federation.agent import OBSERVED, Agent, AgentSettings, StateDir
    from federation.cli.agent_limits import (
        FIRST_SHARE_PPM,
        beside_discovery,
        follow_limits,
        open_board,
    )
    from federation.cli.agent_load import loads_beside_discovery
    from federation.cli.agent_memory import long_lived
    from federation.cli.agent_names import answer_names
    from federation.cli.health import Readiness, health_served
    from federation.derive.compile import CompileSettings, spiffe_id
    from federation.derive.mcs_ports import PortRange
    from federation.discovery import DiscoveryServer, DiscoverySettings, LoadReports
    from federation.model.base import ClusterId, Region
    from federation.model.snapshot import Snapshot
    from federation.quota import QuotaService, QuotaSettings
    from federation.telemetry import catalogue, show
    from federation.telemetry.otlp import sending
    from federation.wire.etcd_keys import Keys
    from federation.wire.xds import Renderer

    keys, clock, cluster = Keys(prefix), SystemClock(), ClusterId(options.cluster)
    compiling = CompileSettings(
        gateway_classes=options.gateway_classes,
        first_share_ppm=FIRST_SHARE_PPM,
        gateway_service=_service_name(options.gateway_service),
        dedicated_gateways=options.gateway_template is not None,
        import_ports=PortRange(*options.import_ports),
        answers_names=options.dns is not None,
    )
    board = open_board(options.ratelimit_redis)
    quota = QuotaService(QuotaSettings(), cluster=cluster, board=board)
    loads = LoadReports(cluster=cluster)
    discovery: DiscoveryServer[Snapshot] = DiscoveryServer(
        DiscoverySettings(
            cluster=cluster,
            address=options.xds,
            tls=_tls_files(options.xds_tls, own=spiffe_id(compiling.trust_domain, cluster)),
        ),
        render=Renderer(),
        beside=[beside_discovery(quota), loads_beside_discovery(loads)],
    )
    objects = opened(
        options.source,
        store=store,
        keys=keys,
        cluster=cluster,
        clock=clock,
        controller=compiling.controller_name,
        clusterset=compiling.trust_domain,
        new=not StateDir(options.state_dir).has_identity,
        gateway_service=compiling.gateway_service,
        gateways_in=options.gateway_template.namespace if options.gateway_template else None,
    )
    readiness = Readiness()
    telling = sending(
        options.otlp,
        readiness.registry,
        service="federation-agent",
        instance=_host(),
        attributes={"federation.cluster": cluster, "federation.region": options.region},
    )
    async with (
        health_served(options.health, readiness),
        objects as ports,
        telling as tracer,
    ):
        subject = Agent(
            AgentSettings(
                cluster=cluster,
                region=Region(options.region),
                state_dir=options.state_dir,
                version=release(),
                instance=ports.instance,
                peer_dial=options.peer_dial,
                endpoint_dial=options.endpoint_dial,
                compile=compiling,
                gateway_template=options.gateway_template,
            ),
            store=store,
            keys=keys,
            source=ports.source,
            statuses=ports.statuses,
            snapshots=discovery,
            acks=discovery.acks,
            clock=clock,
            hosts=SystemHostNames(),
            degraded=lambda: (*quota.degraded(), *ports.degraded()),
            derived=ports.derived,
            infrastructure=ports.infrastructure,
            service_ports=ports.service_ports,
            events=ports.events,
            seat=ports.seat,
            # Two agents that divide one limit would give it twice.
            leading={
                "quota": quota.run,
                "quota board": quota.follow_board,
                "load reports": loads.run,
                **ports.leading,
            },
            loads=loads.newest,
            tracer=tracer,
        )
        show(readiness.registry, catalogue.AGENT, observed=OBSERVED, read=subject.observe)
        readiness.why_not = lambda: (
            "" if subject.routing.value is not None else "it knows nothing to serve yet"
        )
        await discovery.start()
        try:
            async with (
                answer_names(subject.routing, options.dns, readiness.registry),
                follow_limits(quota, subject),
                long_lived(subject.routing),
            ):
                await subject.run()
        finally:
            await discovery.stop()
            if board is not None:
                await board.close()


def _tls_files(tls: XdsTls | None, *, own: str) -> TlsFiles | None:
    from federation.discovery import TlsFiles

    if tls is None:
        return None
    # The clusterset's authority signs the gateways of all clusters: only our own may ask here.
    allowed = tls.client_ids or frozenset({own})
    return TlsFiles(tls.certificate, tls.private_key, tls.client_ca, allowed)


def _xds_tls(
    certificate: Path | None,
    private_key: Path | None,
    client_ca: Path | None,
    client_ids: list[str] | None,
) -> XdsTls | None:
    if certificate is None and private_key is None and client_ca is None and not client_ids:
        return None
    if certificate is None or private_key is None or client_ca is None:
        raise typer.BadParameter(
            "--xds-cert, --xds-key and --xds-client-ca go together; give all or none"
        )
    return XdsTls(certificate, private_key, client_ca, frozenset(client_ids or ()))


def checked_name(option: str, text: str) -> str:
    """``text`` if it can be the name of a cluster. Raises ``typer.BadParameter``."""
    if not _LABEL.fullmatch(text):
        raise typer.BadParameter(
            f'"{text}" is no DNS label (at most 63 lower-case letters, digits and "-")',
            param_hint=option,
        )
    return text


def checked_object(option: str, text: str) -> tuple[str, str]:
    """Namespace and name of NAMESPACE/NAME. Raises ``typer.BadParameter``."""
    namespace, _, name = text.partition("/")
    if not (_LABEL.fullmatch(namespace) and _LABEL.fullmatch(name)):
        raise typer.BadParameter(f'"{text}" is not NAMESPACE/NAME', param_hint=option)
    return namespace, name


def _lease_options(lease: str | None, identity: str | None) -> LeaseOptions | None:
    if lease is None:
        if identity is not None:
            raise typer.BadParameter("it goes with --lease", param_hint="--lease-identity")
        return None
    namespace, name = checked_object("--lease", lease)
    return LeaseOptions(namespace, name, checked_name("--lease-identity", identity or _host()))


def _host() -> str:
    """The host's name as a DNS label; a Pod's is one."""
    found = re.sub(r"[^-a-z0-9]+", "-", platform.node().lower()).strip("-")
    return found[:63].strip("-") or "agent"


def _service_name(name: tuple[str, str] | None) -> ServiceName | None:
    from federation.model.base import ServiceName

    return ServiceName(namespace=name[0], name=name[1]) if name is not None else None


def _checked_ports(option: str, text: str) -> tuple[int, int]:
    found = _PORTS.fullmatch(text)
    first, last = (int(found[1]), int(found[2])) if found is not None else (0, 0)
    if not 0 < first <= last <= 65_535:
        raise typer.BadParameter(
            f'"{text}" is not FIRST-LAST with ports of 1 to 65535', param_hint=option
        )
    return first, last


def checked_address(option: str, text: str) -> str:
    """``text`` if it is an address to listen on. Raises ``typer.BadParameter``."""
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found[2]) > 65_535:
        raise typer.BadParameter(f'"{text}" is not HOST:PORT', param_hint=option)
    return text


def _read_dial(option: str, path: Path | None) -> dict[str, str]:
    """The map in ``path``; empty without one."""
    if path is None:
        return {}
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}", param_hint=option) from error
    except ValueError as error:
        raise typer.BadParameter(f"{path}: {error}", param_hint=option) from error
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise typer.BadParameter(
            f"{path}: expected a JSON object from HOST:PORT to HOST:PORT", param_hint=option
        )
    for address in (*found, *found.values()):
        checked_address(f"{option}: {path}", address)
    return found
