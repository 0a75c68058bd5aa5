"""Rendering and sealing one snapshot after another gives what each gives alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from federation.discovery.catalog import Sealer, seal
from federation.model.objects import ApiObject, ObjectKey
from federation.model.snapshot import Snapshot
from federation.model.view import FederationView
from federation.wire.xds import NodeView, Renderer, to_resources
from tests.testkit.random_clusters import clusters, federations
from tests.testkit.routing import compiled, parse, service

ROUTED = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: app}
spec:
  gatewayClassName: federation
  listeners: [{name: grpc, port: 8080, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: users, namespace: app}
spec:
  parentRefs: [{name: gw}]
  rules:
  - backendRefs: [{name: users, port: 9090}, {name: orders, port: 9090}]
"""


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """What a random cluster is compiled to."""
    objects: Mapping[ObjectKey, ApiObject] = draw(clusters())
    view: FederationView = draw(federations())
    return compiled(objects.values(), view).snapshot


@settings(max_examples=40)
@given(st.lists(snapshots(), min_size=2, max_size=4))
def test_one_renderer_for_many_snapshots_changes_nothing(sequence: Sequence[Snapshot]) -> None:
    renderer, sealer = Renderer(), Sealer()
    for generation, source in enumerate([*sequence, sequence[0]], start=1):
        for node in (NodeView(), NodeView("127.0.0.1", 20_000)):
            expected = to_resources(source, node)
            resources = renderer(source, node)
            assert resources == expected
            assert sealer.seal(resources, generation=generation) == seal(
                expected, generation=generation
            )


def test_what_has_not_changed_is_made_and_packed_once() -> None:
    renderer, sealer = Renderer(), Sealer()
    node = NodeView()

    def sealed(endpoint: str) -> tuple[dict[str, int], dict[str, int]]:
        objects = [*service("app/users", [endpoint]), *service("app/orders"), *parse(ROUTED)]
        catalog = sealer.seal(renderer(compiled(objects).snapshot, node), generation=1)
        of_type = {kind.word: entries for kind, entries in catalog.types.items()}
        return (
            {name: id(entry) for name, entry in of_type["clusters"].items()},
            {name: id(entry) for name, entry in of_type["endpoints"].items()},
        )

    clusters_before, endpoints_before = sealed("10.0.0.1:8080")
    clusters_after, endpoints_after = sealed("10.0.0.2:8080")
    assert clusters_after == clusters_before
    changed = {name for name in endpoints_after if endpoints_after[name] != endpoints_before[name]}
    assert len(endpoints_after) > len(changed) > 0
    assert all("users" in name for name in changed)
