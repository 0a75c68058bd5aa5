"""Rate limits of policies: what is refused, what gateways are told, and that they read it back."""

from __future__ import annotations

from typing import Any

import pytest

from federation.derive.compile import CompileInputs, CompileSettings, compile_cluster
from federation.model.conditions import ConditionStatus
from federation.model.objects import ObjectKey
from federation.model.snapshot import HeaderMatch, LimitUnit, MatchKind, RateLimit, Snapshot
from federation.wire.manifest_yaml import parse_documents
from federation.wire.manifests import decode_all
from federation.wire.xds import NodeView, to_resources
from gateway.xds_translate import Kind, UnsupportedFieldError, translate_message
from tests.testkit.routing import WEST, aged, parse, snapshot_of, view

GROUP = "gateway.networking.k8s.io"
OBJECTS = f"""
apiVersion: {GROUP}/v1
kind: Gateway
metadata: {{name: gw, namespace: app}}
spec:
  gatewayClassName: istio
  listeners: [{{name: grpc, port: 80, protocol: HTTP}}, {{name: more, port: 81, protocol: HTTP}}]
---
apiVersion: {GROUP}/v1
kind: GRPCRoute
metadata: {{name: users, namespace: app}}
spec:
  parentRefs: [{{name: gw}}]
  rules: [{{backendRefs: [{{name: user-service, port: 9090}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: user-service, namespace: app}}
spec: {{ports: [{{port: 9090}}]}}
---
"""
RULES = """
      - limit: {requestsPerUnit: 5, unit: Second}
      - clientSelectors:
        - headers: [{name: x-api-key}, {name: X-Env, value: test}]
        - headers: [{name: x-user, type: RegularExpression, value: "[a-z]+"}]
        limit: {requestsPerUnit: 1000, unit: Minute}
"""
LIMITS = (
    RateLimit(name="app/limits/rule-0", requests=5, unit=LimitUnit.SECOND),
    RateLimit(
        name="app/limits/rule-1",
        requests=1000,
        unit=LimitUnit.MINUTE,
        headers=(
            HeaderMatch(name="x-env", kind=MatchKind.EXACT, value="test"),
            HeaderMatch(name="x-user", kind=MatchKind.REGEX, value="[a-z]+"),
        ),
        distinct=("x-api-key",),
    ),
)
DOCUMENTS = [
    {"name": "app/limits/rule-0", "requests": 5, "unit": "second", "headers": []},
    {
        "name": "app/limits/rule-1",
        "requests": 1000,
        "unit": "minute",
        "headers": [
            {"name": "x-env", "exact": "test"},
            {"name": "x-user", "regex": "[a-z]+"},
            {"name": "x-api-key", "distinct": True},
        ],
    },
]


def policy(rules: str, kind: str = "Local", field: str | None = None) -> str:
    return f"""
apiVersion: {GROUP}/v1alpha3
kind: BackendTrafficPolicy
metadata: {{name: limits, namespace: app}}
spec:
  targetRef: {{group: {GROUP}, kind: GRPCRoute, name: users}}
  rateLimit:
    type: {kind}
    {field or kind.lower()}:
      rules: {rules}
"""


def compiled(text: str, settings: CompileSettings | None = None) -> tuple[Snapshot, Any]:
    inputs = CompileInputs(
        cluster=WEST,
        region=view().members[WEST].region,
        objects=snapshot_of(aged(parse(OBJECTS + text))),
        settings=settings or CompileSettings(),
    )
    found = compile_cluster(inputs)
    key = ObjectKey(GROUP, "BackendTrafficPolicy", "app", "limits")
    return found.snapshot, found.statuses[key].ancestors[0].conditions[0]


def limits_in(snapshot: Snapshot) -> list[tuple[RateLimit, ...]]:
    return [
        route.rate_limits
        for table in snapshot.route_tables
        if not table.name.startswith("federation/")
        for host in table.virtual_hosts
        for route in host.routes
    ]


def test_a_policy_limits_all_of_its_route() -> None:
    snapshot, accepted = compiled(policy(RULES))
    assert (accepted.status, accepted.message) == (ConditionStatus.TRUE, "")
    assert limits_in(snapshot) == [LIMITS, LIMITS], "on both listeners, by the same names"


@pytest.mark.parametrize("kind", ["Local", "Global"])
def test_the_gateway_reads_what_the_agent_sends(kind: str) -> None:
    snapshot, _ = compiled(policy(RULES, kind), CompileSettings(first_share_ppm=250_000))
    resources = to_resources(snapshot, NodeView())
    for name in ("app/gw/80", "app/gw/81"):
        body = translate_message(Kind.ROUTE_TABLES, resources.routes[name]).body
        (route,) = body["virtual_hosts"][0]["routes"]
        if kind == "Local":
            expected = [{**entry, "keys_max": 16_384} for entry in DOCUMENTS]
        else:
            more = {"global": True, "first_share_per_million": 250_000}
            expected = [{**entry, **more} for entry in DOCUMENTS]
        assert route["rate_limits"] == expected
    for listener in resources.listeners.values():
        translate_message(Kind.LISTENERS, listener)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda it: it.Clear(), "filter_enabled: must be 100 percent"),
        (lambda it: it.ClearField("rate_limits"), "descriptors: each must go with"),
        (lambda it: setattr(it, "stage", 1), "stage: not supported"),
        (
            lambda it: setattr(it, "rate_limited_as_resource_exhausted", False),
            "rate_limited_as_resource_exhausted: must be true",
        ),
        (
            lambda it: setattr(it.descriptors[1].entries[1], "value", "false"),
            "descriptors[1].entries[1]: must be what its action makes",
        ),
        (
            lambda it: setattr(it.descriptors[0].token_bucket.fill_interval, "seconds", 7),
            "descriptors[0].token_bucket.fill_interval: must be one of",
        ),
        (
            lambda it: setattr(it.descriptors[0].token_bucket, "max_tokens", 7),
            "descriptors[0].token_bucket.tokens_per_fill: must be max_tokens",
        ),
    ],
)
def test_what_would_count_otherwise_is_refused(change: Any, path: str) -> None:
    snapshot, _ = compiled(policy(RULES))
    table = to_resources(snapshot, NodeView()).routes["app/gw/80"]
    from envoy.extensions.filters.http.local_ratelimit.v3 import local_rate_limit_pb2

    config = table.virtual_hosts[0].routes[0].typed_per_filter_config
    name = "envoy.filters.http.local_ratelimit"
    local = local_rate_limit_pb2.LocalRateLimit()
    assert config[name].Unpack(local)
    change(local)
    config[name].Pack(local)
    with pytest.raises(UnsupportedFieldError) as refused:
        translate_message(Kind.ROUTE_TABLES, table)
    where = f"virtual_hosts[0].routes[0].typed_per_filter_config[{name}]."
    assert str(refused.value).startswith(where + path)


def test_an_expression_that_gateways_read_differently_is_refused() -> None:
    rules = """
      - clientSelectors: [{headers: [{name: x-user, type: RegularExpression, value: "(?=a)"}]}]
        limit: {requestsPerUnit: 5, unit: Second}
"""
    snapshot, accepted = compiled(policy(rules))
    assert (accepted.status, accepted.reason) == (ConditionStatus.FALSE, "Invalid")
    where = "spec.rateLimit.local.rules[0].clientSelectors[0].headers[0].value: '(?=a)'"
    assert accepted.message.startswith(where)
    assert limits_in(snapshot) == [(), ()]


LIMIT = "limit: {requestsPerUnit: 5, unit: Second}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (policy("[{limit: {requestsPerUnit: 0, unit: Second}}]"), "requestsPerUnit"),
        (
            policy("[{limit: {requestsPerUnit: 10000001, unit: Second}}]"),
            "requestsPerUnit must be between 1 and 10000000 for unit Second, got 10000001",
        ),
        (
            policy("[{limit: {requestsPerUnit: 4294967296, unit: Day}}]"),
            "must be between 1 and 4294967295",
        ),
        (policy("[{limit: {requestsPerUnit: 1, unit: Week}}]"), "unit"),
        (policy("[]"), "rules"),
        (policy(RULES, "Global", "local"), "type Global needs global.rules"),
        (
            policy(f"[{{clientSelectors: [{{headers: [{{name: 'x y'}}]}}], {LIMIT}}}]"),
            "name",
        ),
        (
            policy(f"[{{clientSelectors: [{{headers: [{{name: x, type: Exact}}]}}], {LIMIT}}}]"),
            "type Exact needs a value",
        ),
        (
            policy(
                "[{clientSelectors: [{headers: [{name: x, type: Distinct, value: a}]}], "
                f"{LIMIT}}}]"
            ),
            "type Distinct takes no value",
        ),
        (
            policy(
                "[{clientSelectors: [{headers: [{name: a}, {name: b}, {name: c}, {name: d}, "
                f"{{name: e}}]}}], {LIMIT}}}]"
            ),
            "at most 4 headers may be Distinct, got 5",
        ),
    ],
)
def test_values_out_of_range_are_refused_with_path_and_range(text: str, message: str) -> None:
    decoded = decode_all(parse_documents(text, origin="test.yaml"))
    (refused,) = decoded.rejected
    assert message in str(refused), refused
    assert "spec.rateLimit" in str(refused)
