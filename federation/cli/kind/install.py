"""Installing the federation into clusters that are there, with the manifests of ``clusters/kind``.

Decides: the order (kinds, etcd, rights and credentials, everything else), and what is waited for.
Leaves to others: making clusters (``clusters``), what a member is made of (``fedctl cluster add``).
Invariants: nothing here knows that the clusters are kind's: each is a kubeconfig; every wait is
bounded; running it again changes nothing but certificates.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from federation.cli.authorities import open_authorities
from federation.cli.credentials import NAMESPACE, Signers
from federation.cli.kind.credentials import ETCD, of_control, of_demo, write_identity
from federation.cli.kind.site import ETCD_NODE_PORT, Member, Site, manifests
from federation.cli.kind.tools import listed
from federation.cli.lab.authority import Authority, write_private

READY_WITHIN = "300s"
WORKLOADS = ("deployment/federation-agent", "deployment/federation-gateway")
CONTROL_WORKLOADS = (f"statefulset/{ETCD}", "deployment/federation-resolver")
USERS = ("root", "operator")
"""Users of etcd that are people on this machine."""

Say = Callable[[str], None]


def install(site: Site, *, crds: Sequence[str], say: Say) -> None:
    """Install into the clusters of ``site``. ``crds`` are files or URLs of released kinds.

    Raises ``ToolError``.
    """
    signers, _ = open_authorities(site.authority)
    for user in USERS:
        write_identity(site.identity(user), signers.etcd_user(user), signers.etcd)
    for member in site.members:
        say(f"{member.region}: the kinds")
        _install_kinds(member, crds)
        member.kubectl.apply("-f", str(manifests("clusters/base/namespace.yaml")))
    say("etcd, and everyone's rights in it")
    _install_etcd(site, signers)
    say("everything else")
    clients = Authority("federation demo")
    write_private(site.client_ca, clients.certificate_pem)
    for member in site.members:
        member.kubectl.apply("-k", _overlay(member))
        member.kubectl.apply("-f", "-", stdin=json.dumps(of_demo(clients)))
        _forward_names(member)
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


def _install_kinds(member: Member, crds: Sequence[str]) -> None:
    names = [option for source in crds for option in ("-f", source)]
    member.kubectl.apply(*names)
    member.kubectl.apply("-f", str(manifests("crds")))
    member.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")


def _install_etcd(site: Site, signers: Signers) -> None:
    """etcd first: members are added to it, and asking for certificates begins when all have one."""
    control = site.control
    addresses = node_addresses(control)
    secrets = listed(of_control(signers, addresses=addresses))
    control.kubectl.apply("-f", "-", stdin=json.dumps(secrets))
    control.kubectl.apply("-k", _overlay(control), "-l", f"app.kubernetes.io/name={ETCD}")
    _await(control, CONTROL_WORKLOADS[:1])
    for user in ("resolver", "operator"):
        site.fedctl("access", "grant", user, user="root")
    inside = f"https://{ETCD}.{NAMESPACE}.svc:2379"
    outside = ",".join(f"https://{address}:{ETCD_NODE_PORT}" for address in addresses)
    for member in site.members:
        site.fedctl(
            *("cluster", "add", member.region, "--region", member.region),
            *("--kubeconfig", str(member.kubeconfig), "--authority", str(site.authority)),
            *("--agent-etcd", inside if member is control else outside),
            user="root",
        )
    site.fedctl("access", "enable", user="root")


def _forward_names(member: Member) -> None:
    """Have the cluster's CoreDNS pass names of the clusterset on, where it has one like kind's."""
    place = ("configmap", "coredns", "-n", "kube-system")
    found = member.kubectl("get", *place, "-o", "json", "--ignore-not-found")
    if not found:
        return
    corefile = json.loads(found)["data"]["Corefile"]
    if "clusterset.local" in corefile:
        return
    service = ("service", "federation-dns", "-n", NAMESPACE)
    address = member.kubectl("get", *service, "-o", "jsonpath={.spec.clusterIP}")
    stanza = manifests("clusters/base/dns/Corefile").read_text()
    stanza = stanza.replace("{$FEDERATION_DNS}", f"{address}:53")
    patch = json.dumps({"data": {"Corefile": f"{corefile.rstrip()}\n{stanza}"}})
    member.kubectl("patch", *place, "--type=merge", "-p", patch)


def _overlay(member: Member) -> str:
    return str(manifests(f"clusters/kind/{member.region}"))


def _await(member: Member, workloads: Sequence[str]) -> None:
    for workload in workloads:
        member.kubectl("rollout", "status", workload, "-n", NAMESPACE, f"--timeout={READY_WITHIN}")
