"""Pure parts of the agent: plans of publication, advertised gateways, the state on disk."""

from __future__ import annotations

import stat
from collections.abc import Collection
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.agent.disk import StateDir, StateDirError
from federation.agent.entrances import ENTRANCES_MAX, entrances
from federation.agent.publication import Publication, Stored, plan
from federation.agent.shield import Shield
from federation.agent.state import routing_view
from federation.derive.exports import ClusterFacts
from federation.model.acks import NodeAcks
from federation.model.base import ClusterId, Region, ServiceName
from federation.model.facts import (
    ClusterGateways,
    EndpointsFact,
    ExportFact,
    Heartbeat,
    PeerGateway,
    ServicePort,
    ServiceType,
)
from federation.model.objects import ObjectSnapshot
from federation.model.view import FederationView
from federation.ports import MAX_WRITES, Delete, Entry, Listing, Put
from federation.wire.etcd import view_from
from federation.wire.etcd_keys import Keys
from federation.wire.manifests import decode_all, parse_documents

KEYS = Keys()
WEST, REGION = ClusterId("west"), Region("us-west")
NOW = "2026-01-01T00:00:00Z"


def name(text: str) -> ServiceName:
    return ServiceName(namespace="app", name=text)


def facts(ready: dict[str, int]) -> ClusterFacts:
    return ClusterFacts(
        exports={
            name(text): ExportFact(
                cluster=WEST,
                region=REGION,
                service=name(text),
                ports=(ServicePort(port=1),),
                ready=count,
                total=count,
                capacity=count,
            )
            for text, count in ready.items()
        }
    )


class Contents:
    """A store in miniature: applies what was planned."""

    def __init__(self) -> None:
        self.revision = 1
        self.entries: dict[str, Entry] = {}

    def plan(self, wanted: ClusterFacts, *, deleted: Collection[str] = ()) -> Publication:
        view = view_from(KEYS, self.revision, self.entries.values()).view
        stored = Stored.of(KEYS, WEST, view, self.entries.values())
        gone = {name(text) for text in deleted}
        return plan(KEYS, WEST, stored, wanted, deleted=gone, now=NOW)

    def apply(self, publication: Publication) -> None:
        for batch in publication.batches:
            assert len(batch.writes) <= MAX_WRITES
            self.revision += 1
            for write in batch.writes:
                if isinstance(write, Put):
                    self.entries[write.key] = Entry(
                        write.key, write.value, self.revision, self.revision
                    )
                else:
                    del self.entries[write.key]
            assert view_from(KEYS, self.revision, self.entries.values()).problems == ()

    def exports(self) -> dict[str, int]:
        view = view_from(KEYS, self.revision, self.entries.values()).view
        return {service.name: of[WEST].ready for service, of in view.exports.items()}


ready_counts = st.dictionaries(
    st.sampled_from([f"s{number}" for number in range(12)]), st.integers(0, 5)
)


@given(st.lists(ready_counts, max_size=6))
def test_publishing_what_is_seen_always_converges_and_then_is_silent(
    steps: list[dict[str, int]],
) -> None:
    contents = Contents()
    for wanted in steps:
        deleted = set(contents.exports()) - set(wanted)
        contents.apply(contents.plan(facts(wanted), deleted=deleted))
        assert contents.exports() == wanted
        assert contents.plan(facts(wanted), deleted=deleted).batches == ()


@given(ready_counts, ready_counts)
def test_what_nobody_saw_go_is_never_lost_in_bulk(
    before: dict[str, int], after: dict[str, int]
) -> None:
    contents = Contents()
    contents.apply(contents.plan(facts(before)))
    publication = contents.plan(facts(after))
    contents.apply(publication)
    missing = set(before) - set(after)
    if publication.quarantine is not None:
        assert contents.exports() == before | after
        assert {entry.name for entry in publication.quarantine.missing} == missing
    else:
        assert contents.exports() == after
        assert len(missing) * 5 <= len(before)


def test_a_quarantine_keeps_its_beginning_and_is_written_once() -> None:
    contents = Contents()
    contents.apply(contents.plan(facts({"a": 1})))
    first = contents.plan(facts({}))
    contents.apply(first)
    assert first.quarantine is not None
    again = contents.plan(facts({}))
    assert again.batches == ()
    assert again.quarantine == first.quarantine


def test_an_explicit_deletion_removes_also_what_is_unreadable() -> None:
    contents = Contents()
    contents.apply(contents.plan(facts({"a": 1, "b": 1})))
    key = KEYS.export(WEST, name("a"))
    contents.entries[key] = Entry(key, b"broken", 1, 99)
    writes = contents.plan(facts({"b": 1}), deleted={"a"}).batches[0].writes
    assert Delete(key) in writes


def node(text: str, address: str | None) -> NodeAcks:
    return NodeAcks(text, "gateway", 1, address)


def advertised(
    stored: ClusterGateways | None, *nodes: NodeAcks, left: tuple[str, ...] = ()
) -> dict[str, str] | None:
    found = entrances(stored, nodes, left=left, cluster=WEST, region=REGION)
    return {peer.name: peer.address for peer in found.gateways} if found is not None else None


def test_nothing_is_advertised_before_the_first_gateway() -> None:
    assert advertised(None) is None
    assert advertised(None, node("envoy", None)) is None


def test_silence_removes_no_gateway_and_a_successor_replaces_it() -> None:
    stored = ClusterGateways(
        cluster=WEST,
        region=REGION,
        gateways=(PeerGateway(name="a", address="h:1"), PeerGateway(name="b", address="h:2")),
    )
    assert advertised(stored) == {"a": "h:1", "b": "h:2"}
    assert advertised(stored, node("a", "h:3")) == {"a": "h:3", "b": "h:2"}
    assert advertised(stored, node("c", "h:2")) == {"a": "h:1", "c": "h:2"}


def test_advertised_gateways_are_bounded_and_connected_ones_come_first() -> None:
    old = tuple(PeerGateway(name=f"old{n}", address=f"h:{n}") for n in range(ENTRANCES_MAX))
    stored = ClusterGateways(cluster=WEST, region=REGION, gateways=old)
    found = advertised(stored, node("new", "h:9999"))
    assert found is not None
    assert len(found) == ENTRANCES_MAX
    assert found["new"] == "h:9999"


def test_routing_does_not_depend_on_signs_of_life_and_dials_what_it_is_told() -> None:
    def view(revision: int, own: str) -> FederationView:
        beat = Heartbeat(cluster=WEST, instance="i", seen_revision=revision, version="1")
        peers = {
            cluster: ClusterGateways(
                cluster=cluster,
                region=REGION,
                gateways=(PeerGateway(name="gw", address="public:1"),),
            )
            for cluster in (WEST, ClusterId("east"))
        }
        return FederationView(revision=revision, heartbeats={WEST: beat}, gateways=peers)

    dial = {"public:1": "relay:2"}
    first, second = (
        routing_view(view(revision, "west"), own=WEST, peer_dial=dial) for revision in (1, 2)
    )
    assert first == second
    assert first.gateways[ClusterId("east")].gateways[0].address == "relay:2"
    assert first.gateways[WEST].gateways[0].address == "public:1"


SECRET = """
apiVersion: v1
kind: Secret
metadata: {name: tls, namespace: app}
type: kubernetes.io/tls
data: {tls.crt: Y2VydA==, tls.key: a2V5}
"""


def test_the_state_on_disk_comes_back_whole_and_private(tmp_path: Path) -> None:
    secret = decode_all(parse_documents(SECRET, origin="test")).objects[0].with_creation_order(7)
    snapshot = ObjectSnapshot({secret.key: secret}, {}, 12, synced=True)
    alive = Entry(KEYS.heartbeat(WEST), b"{}", 3, 4, leased=True)
    lasting = Entry(KEYS.member(WEST), b"{}", 3, 3)
    disk = StateDir(tmp_path / "state")
    first = disk.open()
    disk.save(snapshot, Listing(9, (alive, lasting)))
    disk.close()
    assert disk.open() == first, "the identity stays"
    loaded = disk.load()
    disk.close()
    assert loaded is not None
    objects, listing = loaded
    assert objects.objects == snapshot.objects
    assert objects.objects[secret.key].creation_order == 7
    assert listing == Listing(9, (lasting,))
    mode = stat.S_IMODE((tmp_path / "state" / "last-good.json").stat().st_mode)
    assert mode == 0o600


def test_what_is_saved_again_is_whole_whatever_has_changed(tmp_path: Path) -> None:
    disk, others = StateDir(tmp_path), StateDir(tmp_path)
    disk.open()
    one, two, three = numbered(1), numbered(2), numbered(3)
    states = [
        {**one.objects, **two.objects},
        {**two.objects, **three.objects},
        {key: it.with_creation_order(7) for key, it in two.objects.items()} | three.objects,
        {**three.objects, **one.objects},
    ]
    for objects in states:
        disk.save(ObjectSnapshot(objects, synced=True), Listing(1, ()))
        loaded = others.load()
        assert loaded is not None
        assert loaded[0].objects == objects
    (tmp_path / "last-good.json").write_text("lost")
    disk.save(ObjectSnapshot(one.objects, synced=True), Listing(2, ()))
    (tmp_path / "last-good.json").unlink()
    disk.save(ObjectSnapshot(one.objects, synced=True), Listing(2, ()))
    disk.close()
    loaded = others.load()
    assert loaded is not None
    assert loaded[0].objects == one.objects


HEAD = '{"format": 2, "objects": 0, "objectsRevision": 1, "revision": 1, "entries": 1}'
BAD_ENTRY = '{"key": "a", "value": 5, "created": 1, "modified": 1}'


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"format": 2}',
        f"{HEAD}\n{BAD_ENTRY}\n",
        f"{HEAD}\n",
    ],
)
def test_a_broken_state_on_disk_is_named(tmp_path: Path, text: str) -> None:
    disk = StateDir(tmp_path)
    disk.open()
    assert disk.load() is None
    (tmp_path / "last-good.json").write_text(text)
    with pytest.raises(StateDirError, match=r"last-good\.json: cannot be read: .*; ignored"):
        disk.load()
    disk.close()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateDirError, match=r"state directory .*file/state: Not a directory"):
        StateDir(tmp_path / "file" / "state").open()


def numbered(*numbers: int) -> ObjectSnapshot:
    text = "---".join(
        f"\napiVersion: v1\nkind: Namespace\nmetadata: {{name: n{number}}}\n" for number in numbers
    )
    found = decode_all(parse_documents(text, origin="test")).objects
    return ObjectSnapshot({value.key: value for value in found}, synced=True)


def names(snapshot: ObjectSnapshot) -> set[int]:
    return {int(key.name[1:]) for key in snapshot.objects}


def test_a_source_that_lost_most_objects_is_not_believed_until_they_are_back() -> None:
    shield = Shield(numbered(*range(10)).objects)
    assert names(shield.cover(numbered()).snapshot) == set(range(10))
    some = shield.cover(numbered(0, 1, 20))
    assert names(some.snapshot) == {*range(10), 20}
    assert len(some.held) == 8
    back = shield.cover(numbered(*range(6), 20))
    assert names(back.snapshot) == {*range(6), 20}, "the few that are left were deleted"
    assert names(shield.cover(numbered()).snapshot) == set(), "seen to go"


def test_a_deletion_that_was_seen_is_believed_while_others_are_held() -> None:
    shield = Shield(numbered(*range(10)).objects)
    shield.cover(numbered(0))
    assert names(shield.cover(numbered(1)).snapshot) == set(range(1, 10))


def test_without_a_last_good_state_everything_is_believed() -> None:
    assert names(Shield({}).cover(numbered()).snapshot) == set()


def test_a_gateway_that_took_its_leave_goes_and_the_last_one_stays() -> None:
    peers = tuple(PeerGateway(name=n, address=f"{n}:15444") for n in ("gw-1", "gw-2"))
    stored = ClusterGateways(cluster=WEST, region=REGION, gateways=peers)
    both = {"gw-1": "gw-1:15444", "gw-2": "gw-2:15444"}
    assert advertised(stored, left=("gw-1",)) == {"gw-2": "gw-2:15444"}
    assert advertised(stored, node("gw-2", "gw-2:15444"), left=("gw-1",)) == {"gw-2": "gw-2:15444"}
    assert advertised(stored, left=("gw-1", "gw-2")) == both


def test_a_gateway_that_takes_no_calls_of_peers_any_more_goes() -> None:
    peers = tuple(PeerGateway(name=n, address=f"{n}:15444") for n in ("gw-1", "gw-2"))
    stored = ClusterGateways(cluster=WEST, region=REGION, gateways=peers)
    assert advertised(stored, node("gw-1", None)) == {"gw-2": "gw-2:15444"}


def headless(*slices: tuple[str, str]) -> ClusterFacts:
    """Headless exports with slices, as SERVICE and slice's name."""
    exports = {
        name(service): ExportFact(
            cluster=WEST,
            region=REGION,
            service=name(service),
            type=ServiceType.HEADLESS,
            ports=(ServicePort(port=1),),
            ready=1,
            total=1,
            capacity=1,
        )
        for service in ("a", "b", "c")
    }
    endpoints = {
        (name(service), of): EndpointsFact(
            cluster=WEST, service=name(service), name=of, address_type="IPv4"
        )
        for service, of in slices
    }
    return ClusterFacts(exports=exports, endpoints=endpoints)


def slices_of(contents: Contents) -> set[tuple[str, str]]:
    view = view_from(KEYS, contents.revision, contents.entries.values()).view
    return {(fact.service.name, fact.name) for of in view.endpoints.values() for fact in of}


def test_slices_of_headless_exports_come_and_go() -> None:
    contents = Contents()
    contents.apply(contents.plan(headless(("a", "1"), ("b", "1"), ("c", "1"))))
    contents.apply(contents.plan(headless(("a", "2"), ("b", "1"), ("c", "1"))))
    assert slices_of(contents) == {("a", "2"), ("b", "1"), ("c", "1")}
    assert contents.plan(headless(("a", "2"), ("b", "1"), ("c", "1"))).batches == ()


def test_slices_that_nobody_saw_go_stay() -> None:
    """A source without the right to read slices, or half synced, empties no headless service."""
    contents = Contents()
    contents.apply(contents.plan(headless(("a", "1"), ("b", "1"), ("c", "1"))))
    doubtful = contents.plan(headless())
    assert doubtful.quarantine is not None
    assert [service.name for service in doubtful.quarantine.missing] == ["a", "b", "c"]
    contents.apply(doubtful)
    assert slices_of(contents) == {("a", "1"), ("b", "1"), ("c", "1")}
    view = view_from(KEYS, contents.revision, contents.entries.values()).view
    stored = Stored.of(KEYS, WEST, view, contents.entries.values())
    emptied = {name("a"), name("b"), name("c")}
    contents.apply(plan(KEYS, WEST, stored, headless(), deleted=(), emptied=emptied, now=NOW))
    assert slices_of(contents) == set()
