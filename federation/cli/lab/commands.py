"""Command lines of the lab's processes, for a given plan.

Decides: which flags each process of the lab gets.
Leaves to others: what the flags mean (the commands themselves), ports and paths (``plan``).
"""

from __future__ import annotations

import sys
from pathlib import Path

from federation.cli.lab.kubernetes.clusters import AGENT, control_plane, endpoint_dial_path
from federation.cli.lab.plan import (
    LOOPBACK,
    ClusterPlan,
    GatewayPlan,
    LabPlan,
    ProcessPlan,
    Role,
)


def with_processes(plan: LabPlan) -> LabPlan:
    """``plan`` with a process for everything in it, in no particular order of starting."""
    found = [ProcessPlan(name="etcd", role=Role.ETCD, command=etcd_command(plan))]
    for cluster in plan.clusters:
        found.extend(cluster_commands(plan, cluster))
    found.extend(
        ProcessPlan(name=name, role=Role.RESOLVER, command=resolver_command(plan, name=name))
        for name in ("resolver-1", "resolver-2")
    )
    found.append(ProcessPlan(name="console", role=Role.CONSOLE, command=console_command(plan)))
    return plan.model_copy(update={"processes": tuple(found)})


def etcd_command(plan: LabPlan) -> tuple[str, ...]:
    """A real etcd, one member, on loopback: the one from PyPI, or a newer one where it is built."""
    client, peer = f"http://{plan.etcd}", f"http://{plan.etcd_peer}"
    programs = plan.programs or Path(sys.executable).parent
    return (
        str(programs / "etcd"),
        "--name=lab",
        f"--data-dir={plan.directory / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=lab={peer}",
        "--auto-compaction-mode=revision",
        "--auto-compaction-retention=10000",
        "--log-level=warn",
    )


def resolver_command(plan: LabPlan, *, name: str) -> tuple[str, ...]:
    """A resolver. It stands in no region, so that no fault of a region touches the election."""
    return fedctl("--etcd", plan.etcd, "resolver", f"--name={name}")


def console_command(plan: LabPlan) -> tuple[str, ...]:
    """The page. It stands in no region, and may start drains: whoever reaches it owns the lab."""
    contexts = [f"--context={cluster.name}" for cluster in plan.clusters] if plan.programs else []
    return fedctl(
        *("--etcd", plan.etcd, "console", f"--listen={plan.console}", "--write"),
        *((f"--kubeconfig={plan.kubeconfig}", *contexts) if contexts else ()),
    )


def cluster_commands(plan: LabPlan, cluster: ClusterPlan) -> list[ProcessPlan]:
    """Everything that stands in one region; relays first, since the others go through them."""
    pids = plan.directory / f"demo-{cluster.name}.json"
    found = [
        ProcessPlan(
            name=f"relay-{cluster.region}",
            role=Role.RELAY,
            cluster=cluster.name,
            command=_module(
                "relay", cluster.relay.model_dump_json(by_alias=True), str(plan.latency_ms)
            ),
        ),
        ProcessPlan(
            name=f"demo-{cluster.name}",
            role=Role.DEMO,
            cluster=cluster.name,
            command=_module("demo", cluster.demo.model_dump_json(by_alias=True), str(pids)),
        ),
        ProcessPlan(
            name=f"agent-{cluster.name}",
            role=Role.AGENT,
            cluster=cluster.name,
            command=_agent(plan, cluster),
        ),
    ]
    if (control := control_plane(plan, cluster)) is not None:
        parts = {
            Role.KUBE_ETCD: control.etcd_command(),
            Role.KUBE_API: control.api_command(),
            Role.KUBE_CONTROLLERS: control.controllers_command(),
        }
        found.extend(
            ProcessPlan(
                name=f"{role}-{cluster.name}", role=role, cluster=cluster.name, command=command
            )
            for role, command in parts.items()
        )
    found.extend(
        ProcessPlan(
            name=gateway.name,
            role=Role.GATEWAY,
            cluster=cluster.name,
            command=_gateway(plan, cluster, gateway),
        )
        for gateway in cluster.gateways
    )
    if plan.calls_per_second:
        found.append(
            ProcessPlan(
                name=f"client-{cluster.name}",
                role=Role.CLIENT,
                cluster=cluster.name,
                command=_client(plan, cluster),
            )
        )
    return found


def fedctl(*arguments: str) -> tuple[str, ...]:
    """The command line that runs ``fedctl`` with this interpreter."""
    return (sys.executable, "-m", "federation.cli", *arguments)


def _module(name: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"federation.cli.lab.{name}", *arguments)


def _agent(plan: LabPlan, cluster: ClusterPlan) -> tuple[str, ...]:
    return fedctl(
        "--etcd",
        cluster.relay.etcd(),
        "agent",
        f"--cluster={cluster.name}",
        f"--region={cluster.region}",
        *_source(plan, cluster),
        f"--xds={cluster.xds}",
        f"--dns={cluster.dns}",
        f"--state-dir={plan.directory / 'state' / f'agent-{cluster.name}'}",
        f"--peer-dial={peer_dial_path(plan, cluster)}",
        "--gateway-class=istio",
    )


def _source(plan: LabPlan, cluster: ClusterPlan) -> tuple[str, ...]:
    if (control := control_plane(plan, cluster)) is None:
        return ("--source=universal",)
    return (
        "--source=kubernetes",
        f"--kubeconfig={control.kubeconfig_of(AGENT)}",
        f"--endpoint-dial={endpoint_dial_path(plan, cluster)}",
    )


def peer_dial_path(plan: LabPlan, cluster: ClusterPlan) -> Path:
    """The map from advertised gateway addresses to the relay's, for one cluster's agent."""
    return plan.directory / f"peer-dial-{cluster.name}.json"


def _gateway(plan: LabPlan, cluster: ClusterPlan, gateway: GatewayPlan) -> tuple[str, ...]:
    pki = plan.directory / "pki"
    return fedctl(
        "gateway",
        f"--name={gateway.name}",
        f"--cluster={cluster.name}",
        f"--region={cluster.region}",
        f"--agent={cluster.xds}",
        f"--identity-cert={pki / f'{gateway.name}.pem'}",
        f"--identity-key={pki / f'{gateway.name}.key'}",
        f"--trust-bundle={plan.ca}",
        f"--state-dir={plan.directory / 'state' / gateway.name}",
        f"--address={LOOPBACK}",
        f"--port-offset={gateway.port_offset}",
        f"--eastwest-address={gateway.eastwest}",
        f"--admin={gateway.admin}",
        "--workers=1",
    )


def _client(plan: LabPlan, cluster: ClusterPlan) -> tuple[str, ...]:
    return _module(
        "client",
        f"--name={cluster.name}",
        f"--rate={plan.calls_per_second}",
        f"--ca={plan.ca}",
        f"--out={plan.directory / f'client-{cluster.name}.json'}",
        *(gateway.listener(443) for gateway in cluster.gateways),
    )
