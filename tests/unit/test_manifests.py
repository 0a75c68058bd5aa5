"""Manifests to objects: the examples parse unchanged, hostile text is bounded."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from federation.model.objects import (
    BackendTrafficPolicy,
    ConfigMap,
    FederatedServiceImport,
    FilterType,
    Gateway,
    GRPCRoute,
    McsServiceExport,
    MultiClusterService,
    Namespace,
    ObjectKey,
    RetryOn,
    Secret,
)
from federation.wire import manifest_yaml
from federation.wire.manifests import (
    Document,
    ManifestProblem,
    Rejected,
    decode,
    decode_all,
    decode_value,
    parse_documents,
)

MANIFESTS = Path(__file__).parent.parent / "manifests"

CONFIG_MAP = """
apiVersion: v1
kind: ConfigMap
metadata: {{name: {name}}}
data: {{a: "1"}}
"""


def objects_of(text: str) -> dict[str, object]:
    decoded = decode_all(parse_documents(text, origin="t.yaml"))
    assert [entry.message for entry in decoded.rejected] == []
    return {str(entry.key): entry for entry in decoded.objects}


class TestDocumentedManifests:
    """The example manifests are taken as they are."""

    @pytest.mark.parametrize("path", sorted(MANIFESTS.glob("*.yaml")), ids=lambda path: path.name)
    def test_parses_and_reads_back(self, path: Path) -> None:
        decoded = decode_all(parse_documents(path.read_text(), origin=path.name))
        assert decoded.rejected == ()
        assert decoded.objects or decoded.skipped
        for entry in decoded.objects:
            assert decode_value(entry.to_document(), origin="again") == entry

    def test_multi_cluster(self) -> None:
        objects = objects_of((MANIFESTS / "6-multi-cluster.yaml").read_text())
        imported = objects["ServiceImport app/user-service-import"]
        weights = objects["MultiClusterService app/user-service-global"]
        policy = objects["BackendTrafficPolicy app/user-service-failover"]
        assert isinstance(imported, FederatedServiceImport)
        assert isinstance(weights, MultiClusterService)
        assert isinstance(policy, BackendTrafficPolicy)
        assert [(b.cluster, b.weight) for b in weights.spec.cluster_backends] == [
            ("us-west-1", 60),
            ("us-east-1", 40),
        ]
        assert policy.spec.failover is not None
        assert policy.spec.retry is not None
        assert policy.spec.retry.retry_on == (RetryOn.FIVE_XX, RetryOn.CONNECT_FAILURE)
        assert policy.spec.retry.backoff.default_duration_ms == 200
        assert [(r.source, r.target) for r in policy.spec.failover.region_failover] == [
            ("us-west-1", "us-east-1"),
            ("us-east-1", "us-west-1"),
        ]

    def test_namespaces_are_selected_by_expressions_too(self) -> None:
        text = (MANIFESTS / "8-keepalive-health-coexistence.yaml").read_text()
        selector = 'selector: {matchLabels: {internal-grpc: "true"}}'
        assert selector in text
        expression = "selector: {matchExpressions: [{key: team, operator: In, values: [a, b]}]}"
        gateway = objects_of(text.replace(selector, expression))[
            "Gateway infra/multi-protocol-gateway"
        ]
        assert isinstance(gateway, Gateway)
        chosen = gateway.spec.listeners[2].allowed_routes.namespaces.selector
        assert chosen is not None
        assert [chosen.matches({"team": team}) for team in "abc"] == [True, True, False]

    def test_filters_stand_on_the_rule_or_on_a_backend(self) -> None:
        text = (MANIFESTS / "3-canary.yaml").read_text()
        on_rule = objects_of(text)["GRPCRoute app/user-service-canary"]
        lines = text.splitlines()
        start = next(number for number, line in enumerate(lines) if "filters:" in line)
        moved = [
            f"  {line}" if start <= number < start + 5 else line
            for number, line in enumerate(lines)
        ]
        on_backend = objects_of("\n".join(moved))["GRPCRoute app/user-service-canary"]
        assert isinstance(on_rule, GRPCRoute)
        assert isinstance(on_backend, GRPCRoute)
        header_modifier = FilterType.RESPONSE_HEADER_MODIFIER
        assert [f.type for f in on_rule.spec.rules[0].filters] == [header_modifier]
        assert on_backend.spec.rules[0].filters == ()
        assert on_backend.spec.rules[0].backend_refs[1].filters == on_rule.spec.rules[0].filters

    def test_kinds_of_others_are_skipped_by_name(self) -> None:
        text = (MANIFESTS / "7-observability.yaml").read_text()
        decoded = decode_all(parse_documents(text, origin="7.yaml"))
        assert [entry.notice for entry in decoded.skipped] == [
            (
                "7.yaml:19: PrometheusRule infra/grpc-gateway-rules: skipped, without effect here: "
                "Prometheus acts on it"
            ),
        ]


class TestNamespaces:
    def test_default_is_kubernetes_default_or_the_one_given(self) -> None:
        (document,) = parse_documents(CONFIG_MAP.format(name="c"), origin="t")
        plain, given = decode(document), decode(document, default_namespace="app")
        assert isinstance(plain, ConfigMap)
        assert isinstance(given, ConfigMap)
        assert (plain.metadata.namespace, given.metadata.namespace) == ("default", "app")

    def test_cluster_scoped_objects_get_none(self) -> None:
        (found,) = objects_of("{apiVersion: v1, kind: Namespace, metadata: {name: a}}").values()
        assert isinstance(found, Namespace)
        assert found.metadata.namespace == ""


class TestServerFields:
    def test_what_an_api_server_adds_is_dropped(self) -> None:
        raw = {
            "apiVersion": "multicluster.x-k8s.io/v1alpha1",
            "kind": "ServiceExport",
            "metadata": {
                "name": "a",
                "namespace": "b",
                "uid": "u",
                "generation": 4,
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "managedFields": [{}],
                "annotations": None,
                "finalizers": ["x"],
            },
            "status": {"conditions": []},
        }
        export = decode_value(raw, origin="k")
        assert isinstance(export, McsServiceExport)
        assert export.metadata.generation == 4
        assert "managedFields" not in export.to_document()["metadata"]
        assert "status" not in export.to_document()


class TestYaml:
    def test_a_list_counts_as_its_items(self) -> None:
        text = (
            "apiVersion: v1\nkind: List\nitems:\n"
            "- {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n"
            "- {apiVersion: v1, kind: Namespace, metadata: {name: b, x: 1}}\n"
        )
        decoded = decode_all(parse_documents(text, origin="l.yaml"))
        assert [str(entry.key) for entry in decoded.objects] == ["Namespace a"]
        assert decoded.rejected[0].message.startswith("l.yaml:5: Namespace b: metadata.x: ")

    def test_json_is_yaml(self) -> None:
        text = '{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}'
        assert list(objects_of(text)) == ["Namespace a"]

    def test_empty_documents_count_for_nothing(self) -> None:
        assert parse_documents("# only a comment\n---\n---\n# again\n", origin="t") == []
        assert parse_documents("", origin="t") == []

    def test_directives_stand_before_a_document(self) -> None:
        text = "%YAML 1.1\n---\n{apiVersion: v1, kind: Namespace, metadata: {name: a}}\n"
        assert list(objects_of(text)) == ["Namespace a"]

    def test_dates_and_nulls_are_as_in_kubernetes(self) -> None:
        text = (
            "apiVersion: v1\nkind: Namespace\n"
            "metadata: {name: a, labels: null, creationTimestamp: 2026-01-01T00:00:00Z}\n"
        )
        (found,) = objects_of(text).values()
        assert isinstance(found, Namespace)
        assert found.metadata.creation_timestamp == "2026-01-01T00:00:00Z"
        assert found.metadata.labels is None

    def test_merge_keys_give_way_to_own_ones(self) -> None:
        text = (
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  labels: &base {x: y, z: w}\n"
            "data:\n  <<: *base\n  x: own\n"
        )
        (found,) = objects_of(text).values()
        assert isinstance(found, ConfigMap)
        assert found.data == {"x": "own", "z": "w"}

    def test_a_broken_document_hides_no_other(self) -> None:
        text = f"{CONFIG_MAP.format(name='a')}---\nx: [\n---\n{CONFIG_MAP.format(name='b')}"
        decoded = decode_all(parse_documents(text, origin="t.yaml"))
        assert [entry.metadata.name for entry in decoded.objects] == ["a", "b"]
        assert len(decoded.rejected) == 1

    def test_aliases_expand_under_a_bound(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(manifest_yaml, "NODES_MAX", 1000)
        levels = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9))
        (document,) = parse_documents(f"a0: &a0 [x]\n{levels}", origin="bomb.yaml")
        assert str(document.raw) == "bomb.yaml: means more than 1000 values; split the file"

    def test_merges_expand_under_a_bound(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(manifest_yaml, "NODES_MAX", 1000)
        levels = "\n".join(
            f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 9)
        )
        (document,) = parse_documents(f"a0: &a0 {{x: y}}\n{levels}", origin="bomb.yaml")
        assert str(document.raw) == "bomb.yaml: means more than 1000 values; split the file"

    def test_deep_nesting_is_refused(self) -> None:
        (document,) = parse_documents("[" * 5000, origin="deep.yaml")
        assert isinstance(document.raw, ManifestProblem)
        assert "nested too deep" in str(document.raw)


class TestDuplicates:
    def test_the_first_is_kept(self) -> None:
        text = f"{CONFIG_MAP.format(name='a')}---{CONFIG_MAP.format(name='a')}"
        decoded = decode_all(parse_documents(text, origin="t.yaml"))
        assert len(decoded.objects) == 1
        assert [entry.message for entry in decoded.rejected] == [
            (
                "t.yaml:9: ConfigMap default/a: metadata.name: stands already at t.yaml:2, which "
                "is kept; rename or remove one of the two"
            )
        ]


class TestRejected:
    def test_carries_the_key_as_far_as_there_is_one(self) -> None:
        text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {foo: 1}\n"
        (document,) = parse_documents(text, origin="t")
        outcome = decode(document)
        assert isinstance(outcome, Rejected)
        assert outcome.key == ObjectKey("", "Service", "default", "a")

    def test_says_nothing_of_a_secret(self) -> None:
        raw = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "s"},
            "data": {"a": "hush!"},
            "stringData": {"b": 7_654_321},
            "immutable": "hush too",
        }
        outcome = decode(Document("t", 0, raw))
        assert isinstance(outcome, Rejected)
        assert len(outcome.problems) == 3
        assert not re.search("hush|7654321", outcome.message)

    def test_string_data_becomes_data(self) -> None:
        raw = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "s"},
            "data": {"a": "eA=="},
            "stringData": {"b": "y"},
        }
        secret = decode_value(raw, origin="t")
        assert isinstance(secret, Secret)
        assert secret.data == {"a": b"x", "b": b"y"}
