"""The lab's clusters on API servers: their control planes, credentials and first objects.

Decides: which controllers run, who may log in, how Pods' addresses are mapped to demo endpoints.
Leaves to others: flags (``control_plane``), what the first objects are (``lab.objects``), starting
(``lab.lifecycle``).
Invariants: nothing of it needs root or touches the machine's network: the Pods' addresses exist in
EndpointSlices alone, and the agent maps them to loopback as a NAT would.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from federation.adapters.kubernetes import Connection, ConnectionSettings, connected
from federation.cli.lab.authority import Authority, KeyPair, write_private
from federation.cli.lab.kubernetes.control_plane import ADMIN, ControlPlane, kubeconfig
from federation.cli.lab.kubernetes.crds import install_crds, released_definitions
from federation.cli.lab.kubernetes.go_programs import Say
from federation.cli.lab.objects import documents, listener_certificate
from federation.cli.lab.plan import ClusterPlan, LabPlan
from federation.model.objects.registry import find_kind, plural
from federation.wire.crds import KINDS, custom_resource_definition

AGENT = "federation-agent"
"""The user that the lab's agents are. Here it has all rights, as everything is on loopback; those
that an agent needs are in ``clusters/base/agent/rbac.yaml``."""

MANAGER = "fedctl-lab"
CONTROLLERS = (
    "namespace-controller",
    "garbage-collector-controller",
    "serviceaccount-controller",
    "root-ca-certificate-publisher-controller",
)
"""What deleting and using namespaces takes. None that makes Pods, since nothing would run them, and
none that writes EndpointSlices, since the lab's are written for its demo servers."""

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def control_plane(plan: LabPlan, cluster: ClusterPlan) -> ControlPlane | None:
    """The control plane of ``cluster``, if it has one."""
    if cluster.kubernetes is None or plan.programs is None:
        return None
    return ControlPlane(
        directory=plan.directory / "kubernetes" / cluster.name,
        programs=plan.programs,
        api=cluster.kubernetes.api,
        etcd=cluster.kubernetes.etcd,
        users=(ADMIN, AGENT),
        controllers=CONTROLLERS,
    )


def endpoint_dial_path(plan: LabPlan, cluster: ClusterPlan) -> Path:
    """The map from Pods' addresses to those of demo endpoints, for one cluster's agent."""
    return plan.directory / f"endpoint-dial-{cluster.name}.json"


def write_files(plan: LabPlan) -> None:
    """Write what the control planes, agents and kubectl read."""
    contexts = []
    for cluster in plan.clusters:
        if (control := control_plane(plan, cluster)) is None:
            continue
        control.write_files()
        contexts.append(control.kubeconfig_entries(cluster.name, user=ADMIN, token=ADMIN))
        dial = {entry.pod: entry.address for entry in cluster.demo.endpoints if entry.pod}
        endpoint_dial_path(plan, cluster).write_text(json.dumps(dial))
    if contexts:
        write_private(plan.kubeconfig, json.dumps(kubeconfig(contexts), indent=2).encode())


def populate(plan: LabPlan, authority: Authority, say: Say) -> None:
    """Install the CRDs and write every cluster's first objects.

    Raises ``NoProgramsError`` and ``PortError``.
    """
    definitions = [*released_definitions(say), *map(custom_resource_definition, KINDS)]
    asyncio.run(_populate(plan, listener_certificate(authority), definitions))


async def _populate(plan: LabPlan, certificate: KeyPair, definitions: list[dict[str, Any]]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for cluster in plan.clusters:
            tasks.create_task(_populate_one(plan, cluster, certificate, definitions))


async def _populate_one(
    plan: LabPlan, cluster: ClusterPlan, certificate: KeyPair, definitions: list[dict[str, Any]]
) -> None:
    settings = ConnectionSettings(plan.kubeconfig, cluster.name)
    async with connected(settings) as connection:
        await install_crds(connection, definitions, manager=MANAGER)
        for document in documents(cluster, certificate):
            await _apply(connection, document)


async def _apply(connection: Connection, document: dict[str, Any]) -> None:
    """Apply one object, so that a later ``kubectl apply`` of it knows what was there."""
    group, _, version = document["apiVersion"].rpartition("/")
    kind = find_kind(group, document["kind"])
    if kind is None:
        raise TypeError(f"the lab writes an object of no known kind: {document['kind']}")
    metadata = document["metadata"]
    base = f"/apis/{group}/{version}" if group else f"/api/{version}"
    inside = f"/namespaces/{metadata['namespace']}" if kind.NAMESPACED else ""
    annotated = {**metadata, "annotations": {LAST_APPLIED: json.dumps(document)}}
    await connection.apply(
        f"{base}{inside}/{plural(kind)}/{metadata['name']}",
        {**document, "metadata": annotated},
        manager=MANAGER,
    )
