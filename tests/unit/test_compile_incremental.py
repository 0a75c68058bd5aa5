"""What a change makes the compiler compile again, counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest

from federation.derive.compile import CompileInputs, Compiler, compile_cluster
from federation.model.base import Region
from federation.model.objects import ApiObject, ObjectKey, ObjectSnapshot
from federation.wire.manifests import decode_value
from tests.testkit.big_cluster import PROBE, BigCluster, Json, probe_slice
from tests.testkit.routing import WEST

BIG = BigCluster(services=60, exports=0, routes=40, gateways=2, namespaces=3)
NOTHING = {"listeners": 0, "routes": 0, "hosts": 0, "services": 0, "statuses": 0}

Objects = Mapping[ObjectKey, ApiObject]


def decoded(documents: Iterable[Json]) -> Objects:
    objects = [decode_value(document, origin="test") for document in documents]
    return {it.key: it for it in objects if isinstance(it, ApiObject)}


@pytest.fixture(scope="module")
def objects() -> Objects:
    return decoded([*BIG.objects(), *BIG.probe("10.77.1.1")])


def inputs(objects: Objects) -> CompileInputs:
    snapshot = ObjectSnapshot(objects, synced=True)
    return CompileInputs(cluster=WEST, region=Region(WEST), objects=snapshot)


def made(objects: Objects, changed: Objects) -> dict[str, int]:
    """How much is compiled for ``changed`` after ``objects``, as far as it is not nothing."""
    compiler = Compiler()
    compiler.compile(inputs(objects))
    assert compiler.compile(inputs(changed)) == compile_cluster(inputs(changed))
    return {name: count for name, count in compiler.made.items() if count != NOTHING[name]}


def test_an_endpoint_costs_its_service(objects: Objects) -> None:
    assert made(objects, {**objects, **decoded([probe_slice("10.77.1.2")])}) == {"services": 1}


def test_a_route_costs_itself(objects: Objects) -> None:
    route = next(it for it in BIG.objects() if it["metadata"]["name"] == "route-3")
    route["spec"]["rules"][0]["matches"][0]["method"]["method"] = "Write"
    changed = {**objects, **decoded([route])}
    assert made(objects, changed) == {"routes": 1, "hosts": 1, "statuses": 1}


def test_a_route_that_goes_costs_no_other(objects: Objects) -> None:
    gone = {key: it for key, it in objects.items() if (key.kind, key.name) != ("GRPCRoute", PROBE)}
    assert made(objects, gone) == {}
    assert made(gone, objects) == {"routes": 1, "hosts": 1, "services": 1, "statuses": 1}


def test_a_service_costs_its_routes(objects: Objects) -> None:
    service = next(it for it in BIG.probe("10.77.1.1") if it["kind"] == "Service")
    service["spec"]["ports"][0]["appProtocol"] = "kubernetes.io/ws"
    changed = {**objects, **decoded([service])}
    # The route has no backend any more, so it is refused, and its upstream is not there.
    assert made(objects, changed) == {"routes": 1, "hosts": 1, "statuses": 1}


def test_a_policy_costs_its_route(objects: Objects) -> None:
    policy = next(it for it in BIG.objects() if it["kind"] == "BackendTrafficPolicy")
    policy["spec"]["retry"]["attempts"] = 7
    changed = {**objects, **decoded([policy])}
    assert made(objects, changed) == {"routes": 1, "hosts": 1, "services": 1, "statuses": 2}


def test_a_listener_costs_the_routes_of_its_gateway(objects: Objects) -> None:
    gateway = next(it for it in BIG.objects() if it["metadata"]["name"] == "edge-1")
    gateway["spec"]["listeners"][0]["port"] += 100
    changed = {**objects, **decoded([gateway])}
    found = made(objects, changed)
    assert found["listeners"] == 1
    assert found["routes"] == BIG.routes // BIG.gateways
    assert "services" not in found
