"""Derived objects that nothing asks for: gone when somebody said so, left alone when not."""

from __future__ import annotations

from typing import Any

import pytest

from federation.derive.compile import CompileInputs, CompileSettings, compile_cluster
from federation.derive.mcs_gone import with_unexplained
from federation.derive.mcs_imports import MANAGED_BY, MANAGER
from federation.derive.mcs_objects import DerivedState
from federation.model.base import ClusterId, Region
from federation.model.facts import Departed, FactsManifest, Member
from federation.model.objects import ApiObject, EndpointSlice, ObjectSnapshot
from federation.model.view import FederationView
from federation.ports import Entry
from federation.wire.etcd import ViewReader, checksum, to_bytes
from federation.wire.etcd_keys import Keys
from federation.wire.manifest_yaml import parse_documents
from federation.wire.manifests import decode_all

WEST, EAST = ClusterId("west"), ClusterId("east")
LABEL = f"{MANAGED_BY}: {MANAGER}"
OBJECTS = f"""
apiVersion: multicluster.x-k8s.io/v1beta1
kind: ServiceImport
metadata:
  name: users
  namespace: app
  labels: {{{LABEL}}}
  annotations: {{multicluster.kubernetes.io/exported-by: east}}
spec: {{type: ClusterSetIP, ports: [{{port: 80}}]}}
---
apiVersion: v1
kind: Service
metadata:
  name: derived-1
  namespace: app
  labels: {{{LABEL}, multicluster.kubernetes.io/service-name: users}}
spec: {{clusterIP: 10.0.0.9, clusterIPs: [10.0.0.9], ports: [{{port: 80, targetPort: 20001}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: derived-1-ipv4
  namespace: app
  labels:
    {LABEL}
    multicluster.kubernetes.io/service-name: users
    multicluster.kubernetes.io/source-cluster: west
addressType: IPv4
endpoints: []
ports: []
"""


def stored() -> tuple[ApiObject, ...]:
    return tuple(decode_all(parse_documents(OBJECTS, origin="test")).objects)


def manifest(cluster: ClusterId) -> FactsManifest:
    return FactsManifest(cluster=cluster, epoch=1, count=0, checksum=checksum({}))


def view(**fields: Any) -> FederationView:
    members = {
        cluster: Member(cluster=cluster, region=Region("r"), instance="i")
        for cluster in (WEST, EAST)
    }
    return FederationView(**{"members": members, **fields})


SEALED = {WEST: manifest(WEST), EAST: manifest(EAST)}
WEST_ALONE = {WEST: Member(cluster=WEST, region=Region("r"), instance="i")}


@pytest.mark.parametrize(
    "federation",
    [
        pytest.param(FederationView(), id="nothing is known at all"),
        pytest.param(view(members=WEST_ALONE, manifests={WEST: manifest(WEST)}), id="restored"),
        pytest.param(view(manifests={WEST: manifest(WEST)}), id="not published yet"),
        pytest.param(view(manifests=SEALED, doubted={EAST: "a fact was skipped"}), id="doubted"),
        pytest.param(
            view(departed={EAST: Departed(cluster=EAST)}, manifests={WEST: manifest(WEST)}),
            id="joined again",
        ),
    ],
)
def test_what_is_merely_missing_stays(federation: FederationView) -> None:
    state, unexplained = with_unexplained(DerivedState(), stored(), federation)
    kept = {**state.imports, **state.services, **state.slices}
    assert kept == {entry.key: entry for entry in stored()}
    assert set(unexplained) == set(kept)


@pytest.mark.parametrize(
    "federation",
    [
        pytest.param(view(manifests=SEALED), id="sealed without it"),
        pytest.param(
            view(
                members=WEST_ALONE,
                manifests={WEST: manifest(WEST)},
                departed={EAST: Departed(cluster=EAST)},
            ),
            id="taken out",
        ),
    ],
)
def test_what_was_said_to_be_gone_goes(federation: FederationView) -> None:
    assert with_unexplained(DerivedState(), stored(), federation) == (DerivedState(), ())


def test_what_is_wanted_is_as_wanted() -> None:
    (found,) = (entry for entry in stored() if isinstance(entry, EndpointSlice))
    wanted = found.model_copy(update={"address_type": "IPv6"})
    state, unexplained = with_unexplained(
        DerivedState(slices={found.key: wanted}), stored(), view()
    )
    assert state.slices == {found.key: wanted}
    assert found.key not in unexplained


def test_other_peoples_objects_are_not_looked_at() -> None:
    theirs = [entry.with_metadata(labels={}) for entry in stored()]
    assert with_unexplained(DerivedState(), theirs, FederationView()) == (DerivedState(), ())


def test_the_status_keeps_the_clusters_that_have_not_said_no() -> None:
    def clusters(federation: FederationView) -> tuple[ClusterId, ...]:
        inputs = CompileInputs(
            cluster=WEST,
            region=Region("r"),
            objects=ObjectSnapshot({entry.key: entry for entry in stored()}, synced=True),
            view=federation,
            settings=CompileSettings(),
            kept_certificates={},
        )
        (found,) = (entry for entry in stored() if entry.kind == "ServiceImport")
        return compile_cluster(inputs).statuses[found.key].clusters

    assert clusters(view(manifests={WEST: manifest(WEST)})) == (EAST,)
    assert clusters(view(manifests=SEALED)) == ()


def test_facts_that_cannot_be_read_put_their_cluster_in_doubt() -> None:
    keys = Keys("/t/")
    entries = [
        Entry(keys.manifest(EAST), to_bytes(manifest(EAST)), 1, 1),
        Entry(f"{keys.facts(EAST)}endpoints/app/users/slice-1", b'{"new": "shape"}', 1, 1),
        Entry(keys.manifest(WEST), to_bytes(manifest(WEST)), 1, 1),
    ]
    found = ViewReader(keys).read(1, entries).view
    assert found.is_told(WEST)
    assert not found.is_told(EAST)
    assert "slice-1" in found.doubted[EAST]
