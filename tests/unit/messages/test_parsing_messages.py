"""The exact words for bad manifests: file, line, object, field, what is wrong, what to do.

Each case is a manifest as a user would get it wrong, and all that is said about it.
"""

from __future__ import annotations

import textwrap

import pytest

from federation.wire.manifests import decode_all, parse_documents


def said_about(text: str) -> list[str]:
    documents = parse_documents(textwrap.dedent(text).lstrip("\n"), origin="user.yaml")
    return [line for entry in decode_all(documents).rejected for line in entry.message.splitlines()]


def route(spec: str) -> str:
    body = textwrap.indent(textwrap.dedent(spec).strip("\n"), "  ")
    return (
        "apiVersion: gateway.networking.k8s.io/v1\n"
        "kind: GRPCRoute\n"
        "metadata: {name: user-service-weighted, namespace: app}\n"
        f"spec:\n{body}\n"
    )


def policy(spec: str) -> str:
    body = textwrap.indent(textwrap.dedent(spec).strip("\n"), "  ")
    return (
        "apiVersion: gateway.networking.k8s.io/v1alpha3\n"
        "kind: BackendTrafficPolicy\n"
        "metadata: {name: p, namespace: app}\n"
        "spec:\n"
        "  targetRef: {group: gateway.networking.k8s.io, kind: GRPCRoute, name: r}\n"
        f"{body}\n"
    )


class TestYaml:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "apiVersion: v1\nkind: Service\nmetadata: {name: a\nspec: {}\n",
                (
                    "user.yaml:4:5: not valid YAML: expected ',' or '}', but got ':' "
                    "(while parsing a flow mapping)"
                ),
            ),
            (
                "apiVersion: v1\n\tkind: Service\n",
                (
                    "user.yaml:2:1: not valid YAML: found character '\\t' that cannot start any "
                    "token (while scanning for the next token)"
                ),
            ),
            (
                "kind: Service\n---\napiVersion: v1\nkind: Service\n kind: Service\n",
                "user.yaml:5:6: not valid YAML: mapping values are not allowed here",
            ),
            (
                "metadata:\n  name: a\n  name: b\n",
                'user.yaml:3:3: not valid YAML: field "name" stands twice',
            ),
            (
                "spec: !!python/object:os.system {}\n",
                (
                    "user.yaml:1:7: not valid YAML: the tag "
                    "tag:yaml.org,2002:python/object:os.system is not taken; write plain values"
                ),
            ),
            (
                "metadata: {name: !custom a}\n",
                "user.yaml:1:18: not valid YAML: the tag !custom is not taken; write plain values",
            ),
            (
                "spec: &loop {again: *loop}\n",
                "user.yaml:1:7: not valid YAML: an alias contains itself",
            ),
            ("- a\n", "user.yaml:1: an object is a map with apiVersion, kind and metadata"),
            ("x: .nan\n", "user.yaml:1:4: not valid YAML: .nan is not a number that JSON has"),
        ],
    )
    def test_says_where(self, text: str, message: str) -> None:
        assert message in said_about(text)


class TestHeader:
    def test_unknown_kind(self) -> None:
        assert said_about("apiVersion: example.com/v1\nkind: Foo\nmetadata: {name: a}\n") == [
            (
                'user.yaml:2: Kind "Foo" in example.com/v1 is not known; known kinds: '
                "BackendTrafficPolicy, ConfigMap, Drain, EndpointSlice, GRPCRoute, Gateway, "
                "GatewayClass, HTTPRoute, ListenerSet, MultiClusterService, Namespace, "
                "ObservabilityPolicy, "
                "ReferenceGrant, Secret, Service, ServiceExport, ServiceImport"
            )
        ]

    def test_kind_of_a_later_version_is_refused_by_name(self) -> None:
        (message,) = said_about(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: TLSRoute\nmetadata: {name: a}\n"
        )
        assert message.startswith(
            'user.yaml:2: Kind "TLSRoute" in gateway.networking.k8s.io/v1 is not known; '
        )

    def test_known_kind_in_a_foreign_group(self) -> None:
        (message,) = said_about("apiVersion: x.io/v1\nkind: GRPCRoute\nmetadata: {name: a}\n")
        assert message.endswith(
            "; GRPCRoute is known in gateway.networking.k8s.io/v1, "
            "gateway.networking.k8s.io/v1alpha2"
        )

    def test_unknown_version(self) -> None:
        assert said_about(
            "apiVersion: gateway.networking.k8s.io/v9\nkind: Gateway\nmetadata: {name: a}\n"
        ) == [
            (
                "user.yaml:1: Gateway default/a: apiVersion: gateway.networking.k8s.io/v9 is not "
                "known for Gateway; known versions: gateway.networking.k8s.io/v1, "
                "gateway.networking.k8s.io/v1beta1"
            )
        ]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("kind: Service\n", "user.yaml:1: Service: apiVersion: required field is missing"),
            ("apiVersion: v1\n", "user.yaml:1: kind: required field is missing"),
            (
                "apiVersion: v1\nkind: Service\n",
                "user.yaml:1: Service: metadata: required field is missing",
            ),
            (
                "apiVersion: v1\nkind: Service\nmetadata: {}\n",
                "user.yaml:3: Service: metadata.name: required field is missing",
            ),
            (
                "apiVersion: v1\nkind: Service\nmetadata: {name: User_Service}\n",
                (
                    "user.yaml:3: Service default/User_Service: metadata.name: must be a DNS name "
                    "of at most 253 lower-case letters, digits, '-' and '.', got \"User_Service\""
                ),
            ),
            (
                "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, namespace: b}\n",
                (
                    "user.yaml:3: Namespace b/a: metadata.namespace: a Namespace belongs to no "
                    "namespace; remove the field"
                ),
            ),
        ],
    )
    def test_what_every_object_needs(self, text: str, message: str) -> None:
        assert said_about(text) == [message]


class TestFields:
    def test_unknown_field(self) -> None:
        assert said_about(route("foo: 1")) == [
            (
                "user.yaml:5: GRPCRoute app/user-service-weighted: spec.foo: unknown field; "
                "known fields here: hostnames, parentRefs, rules"
            )
        ]

    def test_mistyped_field(self) -> None:
        text = route(
            """
            rules:
            - backendRef:
              - {name: a, port: 9090}
            """
        )
        assert said_about(text) == [
            (
                "user.yaml:6: GRPCRoute app/user-service-weighted: spec.rules[0].backendRef: "
                "unknown field; known fields here: backendRefs, filters, matches, name, "
                "sessionPersistence; did you mean backendRefs?"
            )
        ]

    def test_python_names_of_fields_are_unknown(self) -> None:
        (message,) = said_about(route("parent_refs: []"))
        assert "spec.parent_refs: unknown field" in message

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            (
                "match: {service: 5}",
                "5: spec.rules[0].matches[0].method.service: must be text, got 5; put it in quotes",
            ),
            (
                "match: {}",
                "5: spec.rules[0].matches[0].method: needs a service, a method or both",
            ),
        ],
    )
    def test_matches(self, spec: str, message: str) -> None:
        method = spec.removeprefix("match: ")
        line, _, rest = message.partition(": ")
        assert said_about(route(f"rules: [{{matches: [{{method: {method}}}]}}]")) == [
            f"user.yaml:{line}: GRPCRoute app/user-service-weighted: {rest}"
        ]

    def test_all_problems_of_an_object_are_told_in_order_of_lines(self) -> None:
        text = route(
            """
            hostnames: ["grpc.example.com:443"]
            rules:
            - backendRefs:
              - {name: a, port: 0}
              - {name: b, port: "9090"}
              - {name: c}
            """
        )
        said = "GRPCRoute app/user-service-weighted: spec"
        assert said_about(text) == [
            (
                f"user.yaml:5: {said}.hostnames[0]: must be a lower-case DNS name, with `*.` in "
                'front at most (no port, no address), got "grpc.example.com:443"'
            ),
            f"user.yaml:8: {said}.rules[0].backendRefs[0].port: must be between 1 and 65535, got 0",
            f'user.yaml:9: {said}.rules[0].backendRefs[1].port: must be a whole number, got "9090"',
            f"user.yaml:10: {said}.rules[0].backendRefs[2]: a reference to a Service needs a port",
        ]

    def test_long_values_are_cut(self) -> None:
        (message,) = said_about(route(f"hostnames: [{{a: {'x' * 500}}}]"))
        assert message.endswith('must be text, got {"a": "' + "x" * 52 + "…")


class TestWeights:
    def test_negative(self) -> None:
        text = route(
            """
            rules:
            - backendRefs:
              - {name: user-service-v1, port: 9090, weight: 80}
              - name: user-service-v2
                port: 9090
                weight: -5
            """
        )
        assert said_about(text) == [
            (
                "user.yaml:10: GRPCRoute app/user-service-weighted: "
                "spec.rules[0].backendRefs[1].weight: must be between 0 and 1000000, got -5"
            )
        ]

    def test_all_zero(self) -> None:
        text = route(
            """
            rules:
            - backendRefs:
              - {name: user-service-v1, port: 9090, weight: 0}
              - {name: user-service-v2, port: 9090, weight: 0}
            """
        )
        assert said_about(text) == [
            (
                "user.yaml:6: GRPCRoute app/user-service-weighted: spec.rules[0].backendRefs: "
                "weight sum is zero"
            )
        ]

    def test_of_clusters(self) -> None:
        head = (
            "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: MultiClusterService\n"
            "metadata: {name: m, namespace: app}\n"
            "spec:\n  serviceImport: {name: i}\n  clusterBackends:\n"
        )
        said = "MultiClusterService app/m: spec.clusterBackends"
        assert said_about(f"{head}  - {{cluster: a, weight: 0}}\n") == [
            f"user.yaml:6: {said}: weight sum is zero"
        ]
        assert said_about(f"{head}  - {{cluster: a, weight: -1}}\n") == [
            f"user.yaml:7: {said}[0].weight: must be between 0 and 1000000, got -1"
        ]
        assert said_about(f"{head}  - {{cluster: a}}\n  - {{cluster: a}}\n") == [
            f'user.yaml:6: {said}: a cluster stands twice, got "a"'
        ]
        assert said_about(head.replace("clusterBackends:", "clusterBackends: []")) == [
            f"user.yaml:6: {said}: needs at least 1 entry"
        ]


class TestPolicies:
    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            (
                "failover: {regionFailover: [{from: us-west-1, to: us-west-1}]}",
                (
                    'spec.failover.regionFailover[0]: from and to are both "us-west-1"; '
                    "a region cannot fail over to itself"
                ),
            ),
            (
                "failover: {strategy: Anycast, regionFailover: [{from: a, to: b}]}",
                'spec.failover.strategy: must be RegionFailover, got "Anycast"',
            ),
            (
                "retry: {attempts: 11}",
                "spec.retry.attempts: must be between 0 and 10, got 11",
            ),
            (
                "retry: {retryOn: [unavailabel]}",
                (
                    "spec.retry.retryOn[0]: must be one of 5xx, gateway-error, reset, "
                    "connect-failure, refused-stream, retriable-status-codes, cancelled, "
                    "deadline-exceeded, internal, resource-exhausted, unavailable, "
                    'got "unavailabel"; did you mean unavailable?'
                ),
            ),
            (
                "retry: {retryOnStatusCodes: [20]}",
                (
                    "spec.retry.retryOnStatusCodes: must be gRPC codes 0 to 16 or HTTP statuses, "
                    "got 20"
                ),
            ),
            (
                "retry: {backoff: {defaultDuration: 5s, maxDuration: 1s}}",
                "spec.retry.backoff: maxDuration must not be shorter than defaultDuration",
            ),
            (
                "retry: {backoff: {defaultDuration: 0s}}",
                "spec.retry.backoff.defaultDuration: must be at least 1ms, got 0s",
            ),
            (
                "timeout: {http: {requestTimeout: 30}}",
                "spec.timeout.http.requestTimeout: needs a unit, like 100ms, 30s or 1h30m, got 30",
            ),
            (
                "timeout: {http: {requestTimeout: 30 seconds}}",
                (
                    "spec.timeout.http.requestTimeout: not a duration; write it like 100ms, 30s or "
                    '1h30m, got "30 seconds"'
                ),
            ),
            (
                "circuitBreaker: {maxEjectionPercent: 101}",
                "spec.circuitBreaker.maxEjectionPercent: must be between 0 and 100, got 101",
            ),
        ],
    )
    def test_values(self, spec: str, message: str) -> None:
        assert said_about(policy(f"  {spec}")) == [
            f"user.yaml:6: BackendTrafficPolicy app/p: {message}"
        ]


class TestImportsAndGateways:
    def test_resolution_other_than_dns(self) -> None:
        text = """
        apiVersion: gateway.networking.k8s.io/v1beta1
        kind: ServiceImport
        metadata: {name: i, namespace: app}
        spec:
          ports: [{port: 9090}]
          resolution: Static
        """
        assert said_about(text) == [
            (
                "user.yaml:6: ServiceImport app/i: spec.resolution: must be DNS (clients find the "
                'import in svc.clusterset.local), got "Static"'
            )
        ]

    def test_listeners(self) -> None:
        text = """
        apiVersion: gateway.networking.k8s.io/v1
        kind: Gateway
        metadata: {name: g, namespace: infra}
        spec:
          gatewayClassName: istio
          listeners:
          - {name: a, port: 443, protocol: HTTPS}
          - {name: a, port: 444, protocol: HTTPS}
        """
        assert said_about(text) == [
            'user.yaml:6: Gateway infra/g: spec.listeners: listener name "a" stands twice'
        ]

    def test_selector_without_selector(self) -> None:
        text = """
        apiVersion: gateway.networking.k8s.io/v1
        kind: Gateway
        metadata: {name: g, namespace: infra}
        spec:
          gatewayClassName: istio
          listeners:
          - name: a
            port: 443
            protocol: HTTPS
            allowedRoutes:
              namespaces: {from: Selector}
        """
        assert said_about(text) == [
            (
                "user.yaml:11: Gateway infra/g: spec.listeners[0].allowedRoutes.namespaces: "
                "`from: Selector` needs a selector"
            )
        ]

    @pytest.mark.parametrize(
        ("filter_text", "message"),
        [
            (
                "{type: RequestMirror}",
                "type RequestMirror needs the field requestMirror",
            ),
            (
                (
                    "{type: RequestHeaderModifier, requestHeaderModifier: {}, extensionRef: "
                    "{group: g, kind: K, name: n}}"
                ),
                "field extensionRef does not fit type RequestHeaderModifier",
            ),
        ],
    )
    def test_filters(self, filter_text: str, message: str) -> None:
        assert said_about(route(f"rules: [{{filters: [{filter_text}]}}]")) == [
            f"user.yaml:5: GRPCRoute app/user-service-weighted: spec.rules[0].filters[0]: {message}"
        ]


def test_one_bad_object_stops_no_other() -> None:
    good = "apiVersion: v1\nkind: Service\nmetadata: {name: good}\n"
    bad = "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {foo: 1}\n"
    decoded = decode_all(parse_documents(f"{bad}---\n{good}", origin="t.yaml"))
    assert [str(entry.key) for entry in decoded.objects] == ["Service default/good"]
    assert len(decoded.rejected) == 1
