"""What NetworkPolicies say of connections that there really are.

podrunner enforces none, so the connections of a cluster's Pods are read from the kernel and judged
here, as the API's text says: a Pod that a policy selects may do what any of its policies allows. Of
ranges of addresses nothing is known: ours name none. A Service is judged by what is behind it.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.testkit.kubernetes import KubernetesServer
from tests.testkit.manifests import Object

ESTABLISHED, LISTENING = "01", "0A"
NAME = "app.kubernetes.io/name"


@dataclass(frozen=True)
class End:
    """One end of a connection: a Pod by namespace and labels, or some address (no namespace)."""

    namespace: str
    labels: Mapping[str, str]

    @property
    def name(self) -> str:
        return self.labels.get(NAME, self.labels.get("app", ""))


ELSEWHERE = End("", {})


@dataclass(frozen=True)
class Flow:
    """Whoever opened a connection, to which port of whom."""

    source: End
    target: End
    port: int

    def __str__(self) -> str:
        return f"{self.source.name} -> {self.target.name or 'elsewhere'}:{self.port}"


def flows(server: KubernetesServer, namespace: str) -> list[Flow]:
    """The connections that Pods of ``namespace`` have opened to others."""
    pods = server.items("pods")
    ends = {pod["status"]["podIP"]: _end(pod) for pod in pods if pod["status"].get("podIP")}
    services = dict(_services(server, list(ends.values())))
    found = []
    for pod in pods:
        if pod["metadata"]["namespace"] != namespace or not pod["status"].get("podIP"):
            continue
        (status,) = pod["status"]["containerStatuses"]
        process = status["containerID"].removeprefix("process://")
        for address, port in _opened(Path("/proc") / process / "net"):
            target, number = services.get((address, port), (ends.get(address, ELSEWHERE), port))
            found.append(Flow(_end(pod), target, number))
    return found


def denied(policies: list[Object], flow: Flow) -> str:
    """Which side's policies forbid ``flow``; empty: none."""
    if not _allowed(policies, flow, flow.source, flow.target, "Egress"):
        return "egress"
    if flow.target != ELSEWHERE and not _allowed(
        policies, flow, flow.target, flow.source, "Ingress"
    ):
        return "ingress"
    return ""


def _allowed(policies: list[Object], flow: Flow, of: End, peer: End, kind: str) -> bool:
    meant = [
        policy["spec"]
        for policy in policies
        if policy["metadata"]["namespace"] == of.namespace
        and kind in policy["spec"]["policyTypes"]
        and _selects(policy["spec"]["podSelector"], of.labels)
    ]
    side = "to" if kind == "Egress" else "from"
    rules = [rule for spec in meant for rule in spec.get(kind.lower(), ())]
    return not meant or any(
        _has_port(rule.get("ports"), flow.port) and _has_peer(rule.get(side), peer, of.namespace)
        for rule in rules
    )


def _has_port(ports: list[dict[str, Any]] | None, number: int) -> bool:
    return ports is None or any(
        entry.get("protocol", "TCP") == "TCP"
        and entry["port"] <= number <= entry.get("endPort", entry["port"])
        for entry in ports
    )


def _has_peer(peers: list[dict[str, Any]] | None, peer: End, namespace: str) -> bool:
    if peers is None:
        return True
    for entry in peers:
        spaces = entry.get("namespaceSelector")
        space = {"kubernetes.io/metadata.name": peer.namespace}
        near = peer.namespace == namespace if spaces is None else _selects(spaces, space)
        if peer.namespace and near and _selects(entry.get("podSelector", {}), peer.labels):
            return True
    return False


def _selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    assert set(selector) <= {"matchLabels"}, f"not judged here: {selector}"
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


def _end(pod: Object) -> End:
    return End(pod["metadata"]["namespace"], pod["metadata"].get("labels", {}))


def _services(
    server: KubernetesServer, ends: list[End]
) -> Iterator[tuple[tuple[str, int], tuple[End, int]]]:
    """What is behind each address and port of a Service."""
    pods = server.items("pods")
    for service in server.items("services"):
        spec, namespace = service["spec"], service["metadata"]["namespace"]
        behind = [
            end
            for end in ends
            if spec.get("selector")
            and end.namespace == namespace
            and _selects({"matchLabels": spec["selector"]}, end.labels)
        ]
        for port in spec["ports"] if behind else ():
            number = port.get("targetPort", port["port"])
            if isinstance(number, str):
                number = _named(pods, behind[0], number)
            yield (spec["clusterIP"], port["port"]), (behind[0], number)


def _named(pods: list[Object], end: End, name: str) -> int:
    for pod in pods:
        if _end(pod) == end:
            for container in pod["spec"]["containers"]:
                for port in container.get("ports", ()):
                    if port.get("name") == name:
                        return int(port["containerPort"])
    raise AssertionError(f"no port {name}")


def _opened(tables: Path) -> Iterator[tuple[str, int]]:
    """Addresses and ports that connections of a Pod's network were opened to from it."""
    lines = [
        line for name in ("tcp", "tcp6") for line in (tables / name).read_text().splitlines()[1:]
    ]
    rows = [line.split() for line in lines]
    own = {_place(row[1])[1] for row in rows if row[3] == LISTENING}
    for row in rows:
        address, port = _place(row[2])
        if row[3] == ESTABLISHED and _place(row[1])[1] not in own and address != "127.0.0.1":
            yield address, port


def _place(text: str) -> tuple[str, int]:
    """Address and port of a row; IPv4 in IPv6 as what it is (there is no other IPv6 here)."""
    address, port = text.split(":")
    return socket.inet_ntoa(struct.pack("<I", int(address[-8:], 16))), int(port, 16)
