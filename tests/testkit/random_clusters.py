"""Hypothesis strategies for the objects of one cluster and for the federation's state.

Decides: small pools of names, so that objects meet, collide and miss each other.
Leaves to others: the properties.
Invariants: every generated object is one that users could have written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

from federation.model.base import ClusterId, ServiceName
from federation.model.objects import (
    ApiObject,
    BackendTrafficPolicy,
    EndpointSlice,
    FederatedServiceImport,
    Gateway,
    GRPCRoute,
    HTTPRoute,
    McsServiceExport,
    MultiClusterService,
    ObjectKey,
    ObservabilityPolicy,
    ReferenceGrant,
    Service,
)
from federation.model.view import FederationView
from tests.testkit.routing import EAST, WEST, aged, certificate, export, resolved, share, view

NAMESPACES = ("app", "infra")
SERVICES = ("users", "orders", "gone")
HOSTS = ("a.example.com", "b.example.com", "*.example.com", "*.com")
METHODS = (None, {"service": "p.Users"}, {"service": "p.Users", "method": "Get"}, {"method": "Get"})
PORTS = (443, 8443)
SOUTH = ClusterId("eu-south-1")

_namespace = st.sampled_from(NAMESPACES)


def _metadata(names: Sequence[str]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"name": st.sampled_from(names), "namespace": _namespace})


def _made(cls: type[ApiObject], **parts: st.SearchStrategy[Any]) -> st.SearchStrategy[ApiObject]:
    return st.fixed_dictionaries(parts).map(cls.model_validate)


_TERMINATED = {"certificateRefs": [{"name": "cert"}]}

_listener = st.fixed_dictionaries(
    {
        "port": st.sampled_from(PORTS),
        "protocol": st.sampled_from(["HTTPS", "HTTPS", "HTTP", "TCP"]),
        "tls": st.sampled_from([_TERMINATED, _TERMINATED, {"mode": "Passthrough"}]),
        "allowedRoutes": st.just({"namespaces": {"from": "All"}}),
    },
    optional={"hostname": st.sampled_from(HOSTS)},
)

_gateway = _made(
    Gateway,
    metadata=_metadata(["one", "two"]),
    spec=st.lists(_listener, min_size=1, max_size=3).map(
        lambda listeners: {
            "gatewayClassName": "federation",
            "listeners": [
                {**listener, "name": f"l{number}"} for number, listener in enumerate(listeners)
            ],
        }
    ),
)

_backend = st.one_of(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(SERVICES),
            "port": st.sampled_from([9090, 9091]),
            "weight": st.integers(1, 5),
        },
        optional={"namespace": _namespace},
    ),
    st.fixed_dictionaries(
        {
            "group": st.just("gateway.networking.k8s.io"),
            "kind": st.just("ServiceImport"),
            "name": st.sampled_from(["users-import", "orders"]),
            "port": st.just(9090),
            "weight": st.integers(0, 5),
        }
    ),
)

_match = st.fixed_dictionaries(
    {},
    optional={
        "method": st.sampled_from([entry for entry in METHODS if entry is not None]),
        "headers": st.just([{"name": "x-env", "value": "test"}]),
    },
)

_mirror = {
    "type": "RequestMirror",
    "requestMirror": {"backendRef": {"name": "users", "port": 9090}},
}
_lost_mirror = {
    "type": "RequestMirror",
    "requestMirror": {"backendRef": {"name": "nowhere", "port": 1}, "percent": 7},
}
_modifier = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["x-a"]}}
_unknown = {"type": "Teleport"}


def _weighted(backends: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return backends if any(entry["weight"] for entry in backends) else []


_rule = st.fixed_dictionaries(
    {
        "matches": st.lists(_match, max_size=2),
        "backendRefs": st.lists(_backend, max_size=3).map(_weighted),
        "filters": st.sampled_from([[], [], [_modifier], [_mirror], [_lost_mirror], [_unknown]]),
    },
    optional={
        "sessionPersistence": st.sampled_from(
            [{"type": "Cookie"}, {"type": "Header", "idleTimeout": "1m"}]
        )
    },
)

_http_match = st.fixed_dictionaries(
    {},
    optional={
        "path": st.sampled_from(
            [
                {"type": "PathPrefix", "value": "/a"},
                {"type": "Exact", "value": "/a/b"},
                {"type": "RegularExpression", "value": "/[ab].*"},
                {"type": "Riddle", "value": "/"},
            ]
        ),
        "method": st.sampled_from(["GET", "POST"]),
        "queryParams": st.just([{"name": "q", "value": "1"}]),
    },
)

_http_filters = st.sampled_from(
    [
        [],
        [],
        [_modifier],
        [_mirror],
        [_lost_mirror],
        [_unknown],
        [{"type": "RequestRedirect", "requestRedirect": {"scheme": "https", "statusCode": 301}}],
        [
            {
                "type": "URLRewrite",
                "urlRewrite": {
                    "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"}
                },
            }
        ],
        [{"type": "CORS", "cors": {"allowOrigins": ["https://*.example.com"]}}],
    ]
)


def _without_backends_beside_a_redirect(rule: dict[str, Any]) -> dict[str, Any]:
    redirects = any(entry["type"] == "RequestRedirect" for entry in rule["filters"])
    return {**rule, "backendRefs": []} if redirects else rule


_http_rule = st.fixed_dictionaries(
    {
        "matches": st.lists(_http_match, max_size=2),
        "backendRefs": st.lists(_backend, max_size=3),
        "filters": _http_filters,
    },
    optional={
        "timeouts": st.just({"request": "10s", "backendRequest": "2s"}),
        "retry": st.just({"codes": [503], "attempts": 2}),
        "sessionPersistence": st.just({"type": "Header"}),
    },
).map(_without_backends_beside_a_redirect)


def _routes(
    cls: type[ApiObject], rule: st.SearchStrategy[dict[str, Any]]
) -> st.SearchStrategy[ApiObject]:
    return _made(
        cls,
        metadata=_metadata(["r1", "r2", "r3"]),
        spec=st.fixed_dictionaries(
            {
                "parentRefs": st.lists(
                    st.fixed_dictionaries(
                        {"name": st.sampled_from(["one", "two", "none"]), "namespace": _namespace},
                        optional={"sectionName": st.sampled_from(["l0", "l1"])},
                    ),
                    min_size=1,
                    max_size=2,
                ),
                "hostnames": st.lists(st.sampled_from(HOSTS), max_size=2, unique=True),
                "rules": st.lists(rule, min_size=1, max_size=3),
            }
        ),
    )


_route = _routes(GRPCRoute, _rule)
_http_route = _routes(HTTPRoute, _http_rule)

_service = _made(
    Service,
    metadata=_metadata(SERVICES[:2]),
    spec=st.just({"ports": [{"port": 9090}]}),
)

_state = st.sampled_from(
    [{}, {"ready": True}, {"ready": False}, {"ready": False, "serving": True, "terminating": True}]
)


@st.composite
def _slices(draw: st.DrawFn) -> ApiObject:
    name = draw(st.sampled_from(SERVICES[:2]))
    number = draw(st.integers(1, 2))
    return EndpointSlice.model_validate(
        {
            "metadata": {
                "name": f"{name}-{number}",
                "namespace": draw(_namespace),
                "labels": {"kubernetes.io/service-name": name},
            },
            "endpoints": [
                {"addresses": [f"127.0.0.{draw(st.integers(1, 4))}"], "conditions": draw(_state)}
                for _ in range(draw(st.integers(0, 3)))
            ],
            "ports": [{"port": 8000 + number}],
        }
    )


_grant = _made(
    ReferenceGrant,
    metadata=_metadata(["grant"]),
    spec=st.just(
        {
            "from": [
                {"group": "gateway.networking.k8s.io", "kind": kind, "namespace": namespace}
                for kind in ("GRPCRoute", "HTTPRoute", "ObservabilityPolicy")
                for namespace in NAMESPACES
            ],
            "to": [{"group": "", "kind": "Service"}],
        }
    ),
)

_import = _made(
    FederatedServiceImport,
    metadata=_metadata(["users-import", "orders"]),
    spec=st.just({"ports": [{"port": 9090}]}),
)

_multicluster = _made(
    MultiClusterService,
    metadata=_metadata(["global", "other"]),
    spec=st.sampled_from([WEST, EAST, "mars-1"]).map(
        lambda cluster: {
            "serviceImport": {"name": "users-import"},
            "clusterBackends": [{"cluster": cluster, "weight": 1}],
        }
    ),
)

_export = _made(McsServiceExport, metadata=_metadata(SERVICES))


def _limited(scope: str) -> dict[str, Any]:
    rules = [{"limit": {"requestsPerUnit": 5, "unit": "Second"}}]
    return {"type": scope, scope.lower(): {"rules": rules}}


_policy = _made(
    BackendTrafficPolicy,
    metadata=_metadata(["p1", "p2"]),
    spec=st.fixed_dictionaries(
        {
            "targetRef": st.fixed_dictionaries(
                {
                    "group": st.just("gateway.networking.k8s.io"),
                    "kind": st.sampled_from(["GRPCRoute", "HTTPRoute"]),
                    "name": st.sampled_from(["r1", "r2", "r9"]),
                }
            ),
            "retry": st.just({"attempts": 3}),
            "failover": st.sampled_from([EAST, "mars-1"]).map(
                lambda target: {"regionFailover": [{"from": WEST, "to": target}]}
            ),
        },
        optional={
            "loadBalancer": st.sampled_from(
                [
                    {"type": "RoundRobin"},
                    {"type": "ConsistentHash", "consistentHash": {"type": "SourceIP"}},
                ]
            ),
            "rateLimit": st.sampled_from(["Local", "Global"]).map(_limited),
            "faultInjection": st.just({"abort": {"httpStatus": 503, "percentage": 5}}),
            "retryConstraint": st.just({"budget": {"percent": 20}}),
        },
    ),
)


_collector = st.fixed_dictionaries(
    {"name": st.sampled_from(["users", "orders"]), "port": st.sampled_from([9090, 1])},
    optional={"namespace": _namespace},
)

_tracing = st.fixed_dictionaries(
    {},
    optional={
        "provider": st.fixed_dictionaries({"backendRef": _collector}),
        "samplingRate": st.sampled_from([0, 0.5, 100]),
        "customTags": st.lists(
            st.sampled_from(
                [
                    {"name": "a", "literal": {"value": "1"}},
                    {"name": "b", "requestHeader": {"name": "x-b"}},
                    {"name": "c", "env": {"name": "HOME", "defaultValue": "none"}},
                ]
            ),
            max_size=2,
            unique_by=lambda tag: str(tag["name"]),
        ),
    },
)

_access_log = st.one_of(
    st.fixed_dictionaries({"type": st.just("OpenTelemetry"), "backendRef": _collector}),
    st.sampled_from(
        [
            {"type": "File"},
            {"type": "File", "format": {"type": "Text", "text": "%METHOD% %TIER% 1%%"}},
            {"type": "File", "path": "/var/log/calls"},
        ]
    ),
)

_observability = _made(
    ObservabilityPolicy,
    metadata=_metadata(["o1", "o2", "o3"]),
    spec=st.fixed_dictionaries(
        {
            "targetRef": st.sampled_from(
                [
                    {"kind": "Gateway", "name": "one"},
                    {"kind": "Gateway", "name": "one"},
                    {"kind": "Gateway", "name": "one", "sectionName": "l0"},
                    {"kind": "GRPCRoute", "name": "r1"},
                    {"kind": "HTTPRoute", "name": "r1"},
                    {"kind": "HTTPRoute", "name": "r9"},
                ]
            ).map(lambda ref: {"group": "gateway.networking.k8s.io", **ref}),
            "tracing": _tracing,
        },
        optional={"accessLog": _access_log},
    ),
)


@st.composite
def clusters(draw: st.DrawFn) -> Mapping[ObjectKey, ApiObject]:
    """The objects of a cluster, each of an age of its own."""
    kinds = st.one_of(
        _gateway,
        _route,
        _route,
        _http_route,
        _http_route,
        _service,
        _slices(),
        _grant,
        _import,
        _multicluster,
        _export,
        _policy,
        _observability,
        _observability,
    )
    found = {entry.key: entry for entry in draw(st.lists(kinds, max_size=16))}
    # Most clusters have a Gateway that works, else little happens.
    base = draw(_gateway).with_metadata(name="one", namespace="infra")
    found.setdefault(base.key, base)
    objects = [*found.values(), *(certificate(f"{entry}/cert") for entry in NAMESPACES)]
    return {entry.key: entry for entry in aged(draw(st.permutations(objects)))}


@st.composite
def federations(draw: st.DrawFn) -> FederationView:
    """A federation of three clusters that export some of the services, with shares to match."""
    exports = []
    services = []
    names = [ServiceName(namespace=space, name=name) for space in NAMESPACES for name in SERVICES]
    for name in names:
        members = draw(st.lists(st.sampled_from([WEST, EAST, SOUTH]), unique=True))
        exports += [export(member, name, ready=draw(st.integers(0, 2))) for member in members]
        if members and draw(st.booleans()):
            weights = [draw(st.integers(0, 3)) for _ in members]
            shares = [
                share(member, weight * 1000, [other for other in members if other != member])
                if len(members) > 1
                else share(member, weight * 1000)
                for member, weight in zip(members, weights, strict=True)
            ]
            services.append(resolved(*shares, service=name))
    return view(clusters=(WEST, EAST, SOUTH), exports=exports, services=services)
