"""Keys and values of the store: what is read, skipped, and not believed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from federation.model.base import ClusterId, Region, ServiceName
from federation.model.facts import (
    ClusterWeight,
    ExportFact,
    FactsManifest,
    Heartbeat,
    Member,
    ServicePolicyFact,
    ServicePort,
)
from federation.model.objects import ObjectKey
from federation.ports import Entry
from federation.wire.etcd import ViewReader, checksum, from_bytes, to_bytes, view_from
from federation.wire.etcd_access import of_cluster
from federation.wire.etcd_keys import Keys

KEYS = Keys()
WEST = ClusterId("west")
USER = ServiceName(namespace="app", name="user")
ORDER = ServiceName(namespace="app", name="order")


def member(instance: str = "i") -> Member:
    return Member(cluster=WEST, region=Region("r"), instance=instance)


def export(service: ServiceName, ready: int = 1) -> ExportFact:
    return ExportFact(
        cluster=WEST,
        region=Region("r"),
        service=service,
        ports=(ServicePort(port=1),),
        ready=ready,
        total=ready,
        capacity=ready,
    )


def entry(key: str, value: bytes, revision: int = 1, created: int = 1) -> Entry:
    return Entry(key, value, created, revision)


def sealed(*facts: ExportFact, revision: int) -> list[Entry]:
    """Exports and the seal that fits them."""
    entries = [entry(KEYS.export(WEST, f.service), to_bytes(f), revision) for f in facts]
    manifest = FactsManifest(
        cluster=WEST,
        epoch=revision,
        count=len(entries),
        checksum=checksum({found.key: found.value for found in entries}),
    )
    return [*entries, entry(KEYS.manifest(WEST), to_bytes(manifest), revision)]


@pytest.mark.parametrize(
    "key",
    [
        ObjectKey("", "Service", "app", "user"),
        ObjectKey("", "Namespace", "", "app"),
        ObjectKey("gateway.networking.k8s.io", "GatewayClass", "", "istio"),
    ],
)
def test_keys_of_objects_are_read_back(key: ObjectKey) -> None:
    assert KEYS.object_key(WEST, KEYS.object(WEST, key)) == key
    assert KEYS.object_key(WEST, KEYS.status(WEST, key)) == key
    assert KEYS.object_key(ClusterId("east"), KEYS.object(WEST, key)) is None


def test_a_prefix_without_a_slash_at_its_end_is_refused() -> None:
    with pytest.raises(ValueError, match='prefix "/federation" must end with a slash'):
        Keys("/federation")


def test_the_stored_form_leaves_precedence_to_the_store() -> None:
    fact = export(USER).model_copy(update={"create_revision": 99})
    assert from_bytes(ExportFact, to_bytes(fact)).create_revision == 0
    found = view_from(KEYS, 5, [entry(KEYS.export(WEST, USER), to_bytes(fact), 5, created=3)])
    assert found.view.exports[USER][WEST].create_revision == 3


def test_bad_values_are_skipped_and_named() -> None:
    reading = view_from(
        KEYS,
        9,
        [
            entry(KEYS.member(WEST), to_bytes(member())),
            entry(KEYS.member(ClusterId("east")), to_bytes(member())),
            entry(KEYS.drain("a"), b"nonsense"),
            entry(KEYS.heartbeat(WEST), b'{"cluster": "west"}'),
            entry(f"{KEYS.state}later/version", b"{}"),
        ],
    )
    assert list(reading.view.members) == [WEST]
    assert [str(problem) for problem in reading.problems] == [
        "/federation/v1/state/members/east: the value says it belongs at members/west; skipped",
        (
            "/federation/v1/state/drains/a: not a valid Drain: value: Invalid JSON: "
            "expected ident at line 1 column 2; skipped"
        ),
        (
            "/federation/v1/state/heartbeats/west: not a valid Heartbeat: instance: "
            "Field required; skipped"
        ),
        "/federation/v1/state/later/version: not a key of this version; left alone",
    ]


def test_exports_that_their_seal_does_not_fit_are_not_believed() -> None:
    reader = ViewReader(KEYS)
    whole = sealed(export(USER), export(ORDER), revision=5)
    assert reader.read(5, whole).problems == ()
    torn = reader.read(6, [found for found in whole if "order" not in found.key])
    assert set(torn.view.exports) == {USER, ORDER}
    assert "sealed 2 exports at epoch 5, found 1" in torn.problems[0].message
    assert "keeping those read before" in torn.problems[0].message
    smaller = reader.read(7, sealed(export(USER), revision=7))
    assert set(smaller.view.exports) == {USER}
    assert smaller.problems == ()


def test_what_a_cluster_exported_before_it_left_is_not_brought_back() -> None:
    reader = ViewReader(KEYS)
    reader.read(5, sealed(export(USER), export(ORDER), revision=5))
    assert reader.read(6, []).view.exports == {}
    torn = sealed(export(USER), export(ORDER), revision=7)[1:]
    assert len(reader.read(7, torn).view.exports) == 1


def test_a_torn_set_is_used_when_nothing_better_is_known() -> None:
    torn = sealed(export(USER), export(ORDER), revision=5)[1:]
    reading = view_from(KEYS, 5, torn)
    assert set(reading.view.exports) == {ORDER}
    assert "using these" in reading.problems[0].message


def test_of_two_imports_of_one_service_the_older_speaks() -> None:
    def policy(name: str, weight: int) -> ServicePolicyFact:
        weights = (ClusterWeight(target="west", weight=weight),)
        return ServicePolicyFact(cluster=WEST, service=USER, import_name=name, weights=weights)

    entries = [
        entry(KEYS.policy(WEST, USER, "a"), to_bytes(policy("a", 1)), created=20),
        entry(KEYS.policy(WEST, USER, "b"), to_bytes(policy("b", 2)), created=10),
    ]
    assert view_from(KEYS, 20, entries).view.policies[USER][WEST].import_name == "b"


def test_silence_is_timed_from_when_it_was_noticed() -> None:
    now = [100.0]
    reader = ViewReader(KEYS, now=lambda: now[0])
    claim = entry(KEYS.member(WEST), to_bytes(member()))
    beat = Heartbeat(cluster=WEST, instance="i", seen_revision=1, version="1")
    alive = entry(KEYS.heartbeat(WEST), to_bytes(beat))
    assert reader.read(1, [claim, alive]).view.stale_since == {}
    assert reader.read(2, [claim]).view.stale_since == {WEST: 100.0}
    now[0] = 160.0
    assert reader.read(3, [claim]).view.stale_since == {WEST: 100.0}
    assert reader.read(4, [claim, alive]).view.stale_since == {}


def test_a_changed_value_is_read_anew() -> None:
    reader = ViewReader(KEYS)
    first = entry(KEYS.member(WEST), to_bytes(member("one")))
    assert reader.read(1, [first]).view.members[WEST].instance == "one"
    second = replace(first, value=to_bytes(member("two")), mod_revision=2)
    assert reader.read(2, [second]).view.members[WEST].instance == "two"


def test_what_a_cluster_may_write_goes_with_it() -> None:
    """``fedctl cluster remove`` leaves nothing of what the cluster's agent could have written."""
    cluster = ClusterId("us-west-1")
    written = {right.key for right in of_cluster(KEYS, cluster) if right.write}
    assert written <= set(KEYS.of_cluster(cluster))
