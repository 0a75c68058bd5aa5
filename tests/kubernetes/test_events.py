"""Events on a real API server, as ``kubectl describe`` shows them to a person."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from federation.adapters.clock import SystemClock
from federation.adapters.kubernetes import (
    Connection,
    ConnectionSettings,
    KubernetesEventSink,
    connected,
)
from federation.model.events import ObjectEvent
from federation.model.objects import Namespace
from federation.model.objects.metadata import ObjectMeta
from tests.testkit import namespace
from tests.testkit.federation import until
from tests.testkit.kubernetes import KubernetesServer
from tests.testkit.members import Member, Members, Place, place, running_members

pytestmark = [
    pytest.mark.skipif(
        not namespace.inside(), reason="wants its own network: make test-kubernetes"
    ),
    pytest.mark.timeout(300),
]


TAKEN_PORT = 18999
"""Held by this process, so that no gateway can listen there."""


@pytest.fixture(scope="module")
def members(
    kubernetes_pair: tuple[KubernetesServer, KubernetesServer],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Members]:
    with running_members(kubernetes_pair, tmp_path_factory.mktemp("events")) as found:
        yield found


@pytest.fixture
def here(members: Members) -> Iterator[Place]:
    with place(members) as found:
        yield found


def described(member: Member, kind: str, name: str, inside: str = "") -> str:
    """The table of events at the end of ``kubectl describe``, with single spaces."""
    where = ("-n", inside) if inside else ()
    shown = member.server.kubectl("describe", kind, name, *where)
    events = shown.partition("\nEvents:")[2]
    return "\n".join(" ".join(line.split()) for line in events.splitlines())


def tells(member: Member, text: str, kind: str, name: str, inside: str = "") -> str:
    """Wait until the description has ``text``."""

    def look() -> str:
        return described(member, kind, name, inside)

    until(lambda: text in look(), lambda: f"{look()}\n{member.agent.output()[-3000:]}")
    return look()


def test_a_route_without_its_backend_and_with_it_again(here: Place) -> None:
    west = here.members.west
    west.server.apply(here.route({"name": "users", "port": 9090}))
    told = tells(west, "BackendNotFound", "grpcroute", "users", here.namespace)
    assert "Warning BackendNotFound" in told
    assert "federation.dev/agent" in told
    assert "Service" in told
    here.service(west)
    tells(west, "Normal ResolvedRefs", "grpcroute", "users", here.namespace)


def test_a_policy_without_its_target(here: Place) -> None:
    west = here.members.west
    target = {"group": "gateway.networking.k8s.io", "kind": "GRPCRoute", "name": "nothing"}
    policy = here.object(
        "gateway.networking.k8s.io/v1alpha3",
        "BackendTrafficPolicy",
        "lost",
        spec={"targetRef": target},
    )
    west.server.apply(policy)
    tells(west, "Warning TargetNotFound", "backendtrafficpolicy", "lost", here.namespace)


def test_an_import_that_nobody_exports(here: Place) -> None:
    west = here.members.west
    source = here.object(
        "gateway.networking.k8s.io/v1beta1",
        "ServiceImport",
        "users-import",
        spec={"ports": [{"port": 9090}]},
    )
    west.server.apply(source)
    kind = "serviceimports.gateway.networking.k8s.io"
    tells(west, "Warning BackendNotFound", kind, "users-import", here.namespace)


def test_a_gateway_whose_port_is_taken(here: Place) -> None:
    """What a gateway refuses (NACK) is told at the Gateway."""
    west = here.members.west
    gateway = here.object(
        "gateway.networking.k8s.io/v1",
        "Gateway",
        "taken",
        spec={
            "gatewayClassName": "istio",
            "listeners": [{"name": "grpc", "port": TAKEN_PORT, "protocol": "HTTP"}],
        },
    )
    with socket.create_server((west.address, TAKEN_PORT)):
        west.server.apply(gateway)
        told = tells(west, "Warning Invalid", "gateway", "taken", here.namespace)
    assert "refused" in told
    west.server.kubectl("delete", "gateway", "taken", "-n", here.namespace)


def test_a_cluster_that_gives_up_its_part_and_has_it_back(here: Place) -> None:
    west, east = here.members.both
    backends = {}
    for member in (west, east):
        backends[member.name] = here.service(member)
    here.export(west, east)
    kind = "serviceimports.multicluster.x-k8s.io"
    here.members.west.server.kubectl("get", kind, "users", "-n", here.namespace)
    west.server.apply(here.slice("users", []))
    told = tells(west, "Warning FailedOver", kind, "users", here.namespace)
    assert f"{west.name} takes none of its" in told
    west.server.apply(here.slice("users", backends[west.name]))
    tells(west, "Normal Returned", kind, "users", here.namespace)


def test_a_drain_begins_and_is_done(here: Place) -> None:
    west = here.members.west
    document = {
        "apiVersion": "federation.dev/v1alpha1",
        "kind": "Drain",
        "metadata": {"name": here.namespace},
        "spec": {"target": west.name, "over": "1s", "grace": "1s", "force": True},
    }
    west.server.kubectl("apply", "-f", "-", stdin=json.dumps(document))
    told = tells(west, "Normal Drained", "drain", here.namespace)
    assert "Normal DrainStarted" in told
    west.server.kubectl("delete", "drain", here.namespace)


def test_a_refused_drain_says_why(here: Place) -> None:
    west = here.members.west
    document = {
        "apiVersion": "federation.dev/v1alpha1",
        "kind": "Drain",
        "metadata": {"name": here.namespace},
        "spec": {"target": here.members.east.name},
    }
    west.server.kubectl("apply", "-f", "-", stdin=json.dumps(document))
    tells(west, "Warning NotPermitted", "drain", here.namespace)
    west.server.kubectl("delete", "drain", here.namespace)


def test_a_route_says_which_policy_holds_it_until_that_goes(here: Place) -> None:
    """Not an Event, and seen in the same description (GEP-713)."""
    west = here.members.west
    here.service(west)
    target = {"group": "gateway.networking.k8s.io", "kind": "GRPCRoute", "name": "users"}
    policy = here.object(
        "gateway.networking.k8s.io/v1alpha3",
        "BackendTrafficPolicy",
        "holds",
        spec={"targetRef": target, "retry": {"attempts": 1}},
    )
    west.server.apply(here.route({"name": "users", "port": 9090}), policy)
    affected = "gateway.networking.k8s.io/BackendTrafficPolicyAffected"

    def said() -> str:
        return here.said(west, affected)

    until(lambda: said().startswith("True, PolicyAffected: BackendTrafficPolicy"), said)
    west.server.kubectl("delete", "backendtrafficpolicy", "holds", "-n", here.namespace)
    until(lambda: not said(), said)
    assert here.said(west, "Accepted").startswith("True")


# --- the sink alone ---------------------------------------------------------------------------


@pytest.fixture
async def connection(kubernetes: KubernetesServer) -> AsyncIterator[Connection]:
    async with connected(ConnectionSettings(kubernetes.kubeconfig)) as found:
        yield found


def about_default(note: str, *, known: bool = False) -> ObjectEvent:
    source = Namespace(
        api_version="v1", kind="Namespace", metadata=ObjectMeta(name="default", uid="u")
    )
    return ObjectEvent(
        regarding=source, warning=True, reason="R", action="A", note=note, known=known
    )


async def test_the_same_is_a_series_and_no_second_event(connection: Connection) -> None:
    sink = KubernetesEventSink(connection, SystemClock(), instance="test")
    for known in (False, False, False, True):
        await sink.write(about_default("said again", known=known))
    listed = await connection.get("/apis/events.k8s.io/v1/namespaces/default/events")
    found = [entry for entry in listed["items"] if entry["note"] == "said again"]
    assert [(entry["series"]["count"], entry["type"]) for entry in found] == [(3, "Warning")]
    assert found[0]["regarding"]["name"] == "default"
    assert found[0]["reportingController"] == "federation.dev/agent"


async def test_what_is_refused_raises_nothing(connection: Connection) -> None:
    sink = KubernetesEventSink(connection, SystemClock(), instance="test")
    gone = about_default("nowhere")
    gone = gone.model_copy(
        update={"regarding": gone.regarding.with_metadata(namespace="no-such-namespace")}
    )
    await sink.write(gone)
