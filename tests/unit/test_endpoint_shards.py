"""Large sets of endpoints travel in shards to our gateways: one that changes costs one shard."""

from __future__ import annotations

import dataclasses

import pytest
from google.protobuf import any_pb2

from federation.discovery.catalog import Catalog, ResourceType, Sealer
from federation.model.base import ClusterId, Region
from federation.model.snapshot import Endpoint, EndpointSet, LocalityEndpoints, Snapshot, Upstream
from federation.wire.xds import NodeView, Renderer, whole_name
from federation.wire.xds_endpoints import SHARD_ENDPOINTS, shard_count, shards
from gateway.assembly import Assembly, update_for
from gateway.xds_translate import Kind, translate

MANY = 10 * SHARD_ENDPOINTS
OURS, ENVOYS = NodeView(shards=True), NodeView()


def endpoint(number: int) -> Endpoint:
    return Endpoint(host=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", port=8080)


ENDPOINTS = tuple(endpoint(number) for number in range(MANY))


def set_of(*localities: tuple[Endpoint, ...], name: str = "u") -> EndpointSet:
    return EndpointSet(
        name,
        tuple(
            LocalityEndpoints(ClusterId(f"c{at}"), Region("r"), at, 1, members)
            for at, members in enumerate(localities)
        ),
    )


def snapshot(*localities: tuple[Endpoint, ...]) -> Snapshot:
    upstream = Upstream("u", connect_timeout_ms=1_000)
    return Snapshot(
        cluster=ClusterId("west"), upstreams=(upstream,), endpoint_sets=(set_of(*localities),)
    )


@pytest.mark.parametrize("count", [1, 2, 16])
def test_shards_together_are_the_set(count: int) -> None:
    whole = set_of(ENDPOINTS[:3_000], ENDPOINTS[3_000:])
    parts = shards(whole, count)
    assert len(parts) == count
    assert {whole_name(name) for name in parts} == {"u"}
    assert all(part.upstream == name for name, part in parts.items())
    for locality in whole.localities:
        found = [
            entry
            for part in parts.values()
            for own in part.localities
            if own.priority == locality.priority
            for entry in own.endpoints
        ]
        assert sorted(found, key=lambda it: it.host) == sorted(
            locality.endpoints, key=lambda it: it.host
        )


def test_the_number_of_shards_follows_the_size_slowly() -> None:
    assert shard_count(0, 1) == 1
    assert shard_count(4 * SHARD_ENDPOINTS, 1) == 1
    many = shard_count(100_000, 1)
    assert SHARD_ENDPOINTS / 2 <= 100_000 / many <= 2 * SHARD_ENDPOINTS
    assert many & (many - 1) == 0
    for size in (50_000, 100_001, 200_000):
        assert shard_count(size, many) == many, "a set that is cut stays so"
    assert shard_count(100, many) == 1
    assert shard_count(10_000_000, many) > many


def sealed(renderer: Renderer, sealer: Sealer, source: Snapshot, view: NodeView) -> Catalog:
    return sealer.seal(renderer(source, view), generation=1)


def versions(catalog: Catalog) -> dict[str, str]:
    found = catalog.of(ResourceType.ENDPOINTS)
    return {name: resource.version for name, resource in found.items()}


def test_a_change_of_one_endpoint_changes_one_resource_and_one_entry_of_the_update() -> None:
    renderer, sealer, assembly = Renderer(), Sealer(), Assembly()

    def take(catalog: Catalog) -> dict[str, any_pb2.Any]:
        """Bring the gateway there; the resources that had to be sent."""
        sent = {
            name: resource.body
            for name, resource in catalog.of(ResourceType.ENDPOINTS).items()
            if held.get(name) != resource.version
        }
        held.update(versions(catalog))
        assembly.want([translate(Kind.ENDPOINTS, name, body) for name, body in sent.items()])
        return sent

    held: dict[str, str] = {}
    first = sealed(renderer, sealer, snapshot(ENDPOINTS), OURS)
    cluster = first.of(ResourceType.CLUSTERS)["u"]
    assembly.want([translate(Kind.CLUSTERS, "u", cluster.body)])
    assert len(take(first)) > 1
    change = assembly.change_to(assembly.target())
    body = update_for(change, assembly.in_force, version="1").body
    (whole,) = body["endpoints"]
    assert whole["cluster"] == "u"
    assert sum(len(place["endpoints"]) for place in whole["localities"]) == MANY
    assembly.applied(change)

    drained = dataclasses.replace(ENDPOINTS[7], draining=True)
    others = (*ENDPOINTS[:7], drained, *ENDPOINTS[8:-1])
    second = sealed(renderer, sealer, snapshot(others), OURS)
    assert 1 <= len(take(second)) <= 2
    body = update_for(assembly.change_to(assembly.target()), assembly.in_force, version="2").body
    assert body["endpoints"] == []
    (delta,) = body["endpoint_deltas"]
    assert [it["address"] for place in delta["localities"] for it in place["endpoints"]] == [
        f"{drained.host}:8080"
    ]
    assert delta["removed"] == [f"{ENDPOINTS[-1].host}:8080"]


def test_envoy_gets_sets_whole() -> None:
    catalog = sealed(Renderer(), Sealer(), snapshot(ENDPOINTS), ENVOYS)
    assert set(versions(catalog)) == {"u"}
    small = sealed(Renderer(), Sealer(), snapshot(ENDPOINTS[:3]), OURS)
    assert set(versions(small)) == {"u"}


def test_names_that_are_no_shards_stay() -> None:
    assert [whole_name(it) for it in ("u#3.64", "u", "u#x", "a#1#2.4")] == ["u", "u", "u#x", "a#1"]
