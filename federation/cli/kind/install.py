"""Installing the federation into clusters that are there, with the manifests of ``clusters/kind``.

Decides: the order: kinds, credentials, manifests, rights in etcd; and what is waited for.
Leaves to others: making clusters (``clusters``), certificates (``credentials``).
Invariants: nothing here knows that the clusters are kind's: each is a kubeconfig. Pods may start
before what they wait for is there; every wait is bounded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from federation.cli.credentials import NAMESPACE
from federation.cli.kind.credentials import (
    Authorities,
    of_control,
    of_demo,
    of_member,
    write_identity,
)
from federation.cli.kind.site import ETCD_NODE_PORT, Member, Site, manifests
from federation.cli.kind.tools import listed
from federation.cli.lab.authority import write_private

READY_WITHIN = "300s"
WORKLOADS = ("deployment/federation-agent", "deployment/federation-gateway")
CONTROL_WORKLOADS = ("statefulset/federation-etcd", "deployment/federation-resolver")
USERS = ("root", "operator")
"""Users of etcd that are people on this machine."""

Say = Callable[[str], None]


def install(site: Site, *, crds: Sequence[str], say: Say) -> None:
    """Install into the clusters of ``site``. ``crds`` are files or URLs of released kinds.

    Raises ``ToolError``.
    """
    authorities = Authorities()
    _keep(site, authorities)
    addresses = node_addresses(site.control)
    outside = [f"https://{address}:{ETCD_NODE_PORT}" for address in addresses]
    inside = [f"https://federation-etcd.{NAMESPACE}.svc:2379"]
    for member in site.members:
        say(f"{member.region}: kinds, credentials and manifests")
        _install_kinds(member, crds)
        control = member is site.control
        objects = of_member(authorities, member.region, etcd=inside if control else outside)
        if control:
            objects += of_control(authorities, addresses=addresses)
        member.kubectl.apply("-f", str(manifests("clusters/base/namespace.yaml")))
        member.kubectl.apply("-f", "-", stdin=json.dumps(listed(objects)))
        member.kubectl.apply("-k", str(manifests(f"clusters/kind/{member.region}")))
        member.kubectl.apply("-f", "-", stdin=json.dumps(of_demo(authorities)))
    say("etcd: waiting for its members, then giving each part its rights")
    _await(site.control, CONTROL_WORKLOADS[:1])
    for user in (*(member.region for member in site.members), "resolver", "operator"):
        site.fedctl("access", "grant", user, user="root")
    site.fedctl("access", "enable", user="root")
    say("waiting until everything is ready")
    _await(site.control, CONTROL_WORKLOADS)
    for member in site.members:
        _await(member, WORKLOADS)


def how_to_go_on(site: Site) -> list[str]:
    """Lines for whoever installed it."""
    exports = [f"export {name}={value}" for name, value in site.environment("operator").items()]
    return [
        "The federation stands. For fedctl:",
        *(f"  {line}" for line in exports),
        "For kubectl:",
        *(f"  kubectl --kubeconfig {member.kubeconfig} get gateways -A" for member in site.members),
        "Next: make kind-demo (fedctl kind demo); the end: make kind-down",
    ]


def node_addresses(member: Member) -> list[str]:
    """The addresses by which other clusters reach the nodes of ``member``."""
    nodes = json.loads(member.kubectl("get", "nodes", "-o", "json"))["items"]
    found: dict[str, None] = {}
    for node in nodes:
        for address in node["status"].get("addresses", ()):
            if address["type"] == "InternalIP":
                found[address["address"]] = None
    return list(found)


def _keep(site: Site, authorities: Authorities) -> None:
    """Write what people on this machine need."""
    for user in USERS:
        write_identity(site.identity(user), authorities.etcd_user(user), authorities.etcd)
    write_private(site.client_ca, authorities.clients.certificate_pem)


def _install_kinds(member: Member, crds: Sequence[str]) -> None:
    names = [option for source in crds for option in ("-f", source)]
    member.kubectl.apply(*names)
    member.kubectl.apply("-f", str(manifests("crds")))
    established = ("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    member.kubectl(*established)


def _await(member: Member, workloads: Sequence[str]) -> None:
    for workload in workloads:
        member.kubectl("rollout", "status", workload, "-n", NAMESPACE, f"--timeout={READY_WITHIN}")
