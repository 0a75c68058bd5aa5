"""Objects as values: identity, age, JSON form, and what single kinds decide by themselves."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from federation.model.objects import (
    KINDS,
    BackendRef,
    FederatedServiceImport,
    FromNamespaces,
    GatewayClass,
    GRPCRoute,
    GRPCRouteRule,
    HTTPRoute,
    LabelSelector,
    McsServiceImport,
    Namespace,
    ObjectKey,
    ObjectMeta,
    ObjectSnapshot,
    ReferenceGrant,
    RouteNamespaces,
    Secret,
    Service,
    find_kind,
    find_kind_by_name,
    names_of,
    plural,
    resource,
)


def service(name: str, *, namespace: str = "app", order: int = 0) -> Service:
    meta = ObjectMeta(name=name, namespace=namespace)
    return Service(metadata=meta).with_creation_order(order)


class TestIdentity:
    def test_key_ignores_the_version(self) -> None:
        assert service("a").key == ObjectKey("", "Service", "app", "a")
        assert str(service("a").key) == "Service app/a"

    def test_cluster_scoped_objects_have_no_namespace(self) -> None:
        assert str(Namespace(metadata=ObjectMeta(name="app")).key) == "Namespace app"

    @pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a" * 254, "a..b", "a\n"])
    def test_names_are_dns_names(self, name: str) -> None:
        with pytest.raises(ValidationError):
            ObjectMeta(name=name)


class TestAge:
    def test_older_comes_first_then_alphabetical(self) -> None:
        objects = [service("b", order=2), service("z", order=1), service("a", order=2)]
        snapshot = ObjectSnapshot(objects={entry.key: entry for entry in objects})
        assert [entry.metadata.name for entry in snapshot.of(Service)] == ["z", "a", "b"]

    def test_order_is_kept_out_of_the_json_form(self) -> None:
        assert service("a", order=7).to_document() == service("a").to_document()
        assert service("a", order=7).creation_order == 7

    def test_metadata_can_be_replaced_without_losing_the_order(self) -> None:
        changed = service("a", order=7).with_metadata(generation=3)
        assert (changed.metadata.generation, changed.creation_order) == (3, 7)


class TestJsonForm:
    def test_defaults_are_spelled_out_and_absent_fields_left_out(self) -> None:
        rule = GRPCRouteRule(backend_refs=(BackendRef(name="a", port=1),))
        assert rule.model_dump(mode="json", by_alias=True) == {
            "backendRefs": [{"group": "", "kind": "Service", "name": "a", "port": 1, "weight": 1}]
        }

    def test_an_empty_selector_is_kept_since_it_selects_all(self) -> None:
        namespaces = RouteNamespaces(from_=FromNamespaces.SELECTOR, selector=LabelSelector())
        written = namespaces.model_dump(mode="json", by_alias=True)
        assert written == {"from": "Selector", "selector": {}}


class TestSecret:
    def test_values_never_print(self) -> None:
        secret = Secret(metadata=ObjectMeta(name="s"), data={"tls.key": b"hush"})
        assert "hush" not in repr(secret)
        assert "hush" not in str(secret.data)
        assert f"{secret.data['tls.key']!r}" == "<redacted, 4 bytes>"

    def test_json_form_reads_back(self) -> None:
        secret = Secret(metadata=ObjectMeta(name="s"), data={"tls.key": bytes(range(256))})
        assert Secret.model_validate(secret.to_document()) == secret


class TestSelectors:
    @pytest.mark.parametrize(
        "raw",
        [
            {"from": "Selector", "selector": {"matchLabels": {"a": "b"}}},
            {"from": "Selector", "selector": {"selectorLabels": {"a": "b"}}},
            {"from": "Selector", "selectorLabels": {"a": "b"}},
        ],
    )
    def test_selector_labels_are_match_labels(self, raw: dict[str, object]) -> None:
        assert RouteNamespaces.model_validate(raw).selector == LabelSelector(
            match_labels={"a": "b"}
        )

    @pytest.mark.parametrize(
        ("operator", "values", "selected"),
        [
            ("In", ["x"], [False, True, False]),
            ("NotIn", ["x"], [True, False, True]),
            ("Exists", [], [False, True, True]),
            ("DoesNotExist", [], [True, False, False]),
        ],
    )
    def test_expressions(self, operator: str, values: list[str], selected: list[bool]) -> None:
        selector = LabelSelector.model_validate(
            {"matchExpressions": [{"key": "k", "operator": operator, "values": values}]}
        )
        labels: list[dict[str, str]] = [{}, {"k": "x"}, {"k": "y"}]
        assert [selector.matches(entry) for entry in labels] == selected


class TestReferenceGrant:
    GRANT = ReferenceGrant.model_validate(
        {
            "metadata": {"name": "g", "namespace": "infra"},
            "spec": {
                "from": [
                    {"group": "gateway.networking.k8s.io", "kind": "GRPCRoute", "namespace": "app"}
                ],
                "to": [{"group": "", "kind": "Service", "name": "db"}],
            },
        }
    )
    ROUTE = ObjectKey("gateway.networking.k8s.io", "GRPCRoute", "app", "r")

    def test_permits_what_it_names(self) -> None:
        assert self.GRANT.permits(self.ROUTE, ObjectKey("", "Service", "infra", "db"))

    @pytest.mark.parametrize(
        "referent",
        [
            ObjectKey("", "Service", "infra", "other"),
            ObjectKey("", "Service", "elsewhere", "db"),
            ObjectKey("", "Secret", "infra", "db"),
        ],
    )
    def test_permits_nothing_else(self, referent: ObjectKey) -> None:
        assert not self.GRANT.permits(self.ROUTE, referent)


class TestKinds:
    def test_group_and_kind_name_one_class(self) -> None:
        identities = [(cls.GROUP, cls.KIND) for cls in KINDS]
        assert len(set(identities)) == len(identities)
        assert all(find_kind(cls.GROUP, cls.KIND) is cls for cls in KINDS)

    def test_every_name_with_group_finds_its_kind(self) -> None:
        for cls in KINDS:
            names = [f"{name}.{cls.GROUP}" if cls.GROUP else name for name in names_of(cls)]
            assert {find_kind_by_name(name) for name in names} == {cls}

    @pytest.mark.parametrize(
        ("text", "cls"),
        [
            ("grpcroutes", GRPCRoute),
            ("httproute", HTTPRoute),
            ("GRPCRoute", GRPCRoute),
            ("serviceimport", FederatedServiceImport),
            ("serviceimports.multicluster.x-k8s.io", McsServiceImport),
            ("gatewayclasses", GatewayClass),
            ("svc", Service),
            ("nonsense", None),
        ],
    )
    def test_names_on_the_command_line(self, text: str, cls: type | None) -> None:
        assert find_kind_by_name(text) is cls

    def test_plural_and_resource(self) -> None:
        policy = find_kind_by_name("btp")
        assert policy is not None
        assert plural(policy) == "backendtrafficpolicies"
        assert resource(GRPCRoute) == "grpcroute.gateway.networking.k8s.io"
        assert resource(Service) == "service"
