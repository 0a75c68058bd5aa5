"""Telemetry over xDS: what the agent writes is what the core is told, and refusals by path."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.config.trace.v3 import opentelemetry_pb2
from envoy.extensions.access_loggers.file.v3 import file_pb2
from envoy.extensions.access_loggers.filters.cel.v3 import cel_pb2
from envoy.extensions.access_loggers.open_telemetry.v3 import logs_service_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from envoy.extensions.tracers.opentelemetry.samplers.v3 import (
    parent_based_sampler_pb2,
    trace_id_ratio_based_sampler_pb2,
)

from federation.model.base import ClusterId
from federation.model.snapshot import (
    FilterChain,
    Listener,
    ListenerKind,
    MatchKind,
    PathMatch,
    Refuse,
    Route,
    RouteMatch,
    RouteTable,
    Snapshot,
    VirtualHost,
)
from federation.model.telemetry import (
    DEFAULT_FIELDS,
    FIELDS,
    AccessLog,
    RouteTracing,
    Tag,
    TagSource,
    Telemetry,
    Tracing,
)
from federation.wire.xds import NodeView, to_resources
from gateway.driver import Driver
from gateway.xds_translate import Kind, Piece, UnsupportedFieldError, translate_message
from gateway.xds_translate import telemetry as read
from tests.testkit.ports import free_port

COLLECTOR = "service/infra/otel-collector/4317"
TAGS = (
    Tag("cluster", TagSource.LITERAL, "us-west-1"),
    Tag("environment", TagSource.ENVIRONMENT, "DEPLOY_ENV"),
    Tag("stage", TagSource.ENVIRONMENT, "STAGE", "none"),
    Tag("tenant", TagSource.HEADER, "x-tenant", "nobody"),
)
EVERY_FIELD = tuple((f"{name} 100%%", f"%% %{name}% %REQ(x-{name})%") for name in FIELDS)
FULL = Telemetry(
    Tracing(COLLECTOR, 123_456, TAGS),
    (
        AccessLog(COLLECTOR, fields=DEFAULT_FIELDS, except_rules=("rule's one", 'rule "2"')),
        AccessLog(COLLECTOR, text="%METHOD% %% %REQ(:path)%", rules=("rule's one",)),
        AccessLog(path="/dev/stdout", text="100%% %TIER%", rules=('rule "2"',)),
        AccessLog(path="/var/log/calls", fields=(("a", "%RULE%-%TRIES%"),), rules=('rule "2"',)),
    ),
)


def snapshot(telemetry: Telemetry | None, tracing: RouteTracing | None = None) -> Snapshot:
    every = RouteMatch(PathMatch(MatchKind.PREFIX, "/"))
    route = Route("r", "rule's one", every, Refuse("no"), tracing=tracing)
    return Snapshot(
        cluster=ClusterId("us-west-1"),
        listeners=(
            Listener("l", ListenerKind.INGRESS, 80, (FilterChain("c"),), "t", telemetry=telemetry),
        ),
        route_tables=(RouteTable("t", (VirtualHost("*", (route,)),)),),
    )


def listener_message(telemetry: Telemetry | None) -> listener_pb2.Listener:
    return to_resources(snapshot(telemetry), NodeView("127.0.0.1")).listeners["l"]


def translated(telemetry: Telemetry | None) -> dict[str, Any]:
    return translate_message(Kind.LISTENERS, listener_message(telemetry)).body


def test_nothing_is_told_without_telemetry() -> None:
    assert "telemetry" not in translated(None)


def test_a_listener() -> None:
    assert translated(FULL)["telemetry"] == {
        "tracing": {
            "collector": COLLECTOR,
            "sampling_per_million": 123_456,
            "tags": [
                {"name": "cluster", "literal": "us-west-1"},
                {"name": "environment", "env": "DEPLOY_ENV", "default": None},
                {"name": "stage", "env": "STAGE", "default": "none"},
                {"name": "tenant", "header": "x-tenant", "default": "nobody"},
            ],
        },
        "access_logs": [
            {"sink": {"otlp": COLLECTOR}, "format": "json", "routes": None},
            {
                "sink": {"otlp": COLLECTOR},
                "format": {"text": "%METHOD% %% %REQ(:path)%"},
                "routes": ["rule's one"],
            },
            {
                "sink": {"file": "/dev/stdout"},
                "format": {"text": "100%% %TIER%"},
                "routes": ['rule "2"'],
            },
            {
                "sink": {"file": "/var/log/calls"},
                "format": {"json": [["a", "%RULE%-%TRIES%"]]},
                "routes": ['rule "2"'],
            },
        ],
    }


def test_every_field_comes_through() -> None:
    told = Telemetry(access_logs=(AccessLog(COLLECTOR, fields=EVERY_FIELD),))
    (log,) = translated(told)["telemetry"]["access_logs"]
    assert log["format"] == {"json": [list(pair) for pair in EVERY_FIELD]}
    assert read.FIELDS == FIELDS


@pytest.mark.parametrize(("per_million"), [0, 1, 5_000, 333_333, 999_999, 1_000_000])
def test_sampling_is_exact(per_million: int) -> None:
    body = translated(Telemetry(Tracing(COLLECTOR, per_million)))
    assert body["telemetry"]["tracing"]["sampling_per_million"] == per_million


def route_piece(tracing: RouteTracing | None) -> Piece:
    routes = to_resources(snapshot(None, tracing), NodeView("127.0.0.1")).routes["t"]
    return translate_message(Kind.ROUTE_TABLES, routes)


def test_the_entrance_for_other_clusters_goes_by_their_decision() -> None:
    told = Telemetry(Tracing(COLLECTOR, 0, TAGS[:1]))
    base = snapshot(told)
    (source,) = base.listeners
    entrance = dataclasses.replace(source, kind=ListenerKind.EAST_WEST)
    resources = to_resources(
        dataclasses.replace(base, listeners=(entrance,)), NodeView("127.0.0.1")
    )
    body = translate_message(Kind.LISTENERS, resources.listeners["l"]).body
    assert body["telemetry"]["tracing"] == {
        "collector": COLLECTOR,
        "sampling_per_million": 0,
        "tags": [{"name": "cluster", "literal": "us-west-1"}],
    }


def test_a_route() -> None:
    piece = read.resolve_environment(route_piece(RouteTracing(7, TAGS[1:])), {"STAGE": "test"})
    ((route,),) = [host["routes"] for host in piece.body["virtual_hosts"]]
    assert route["tracing"] == {
        "sampling_per_million": 7,
        "tags": [
            {"name": "stage", "literal": "test"},
            {"name": "tenant", "header": "x-tenant", "default": "nobody"},
        ],
    }
    bare = route_piece(None)
    assert read.resolve_environment(bare, {}) is bare
    assert "tracing" not in bare.body["virtual_hosts"][0]["routes"][0]


def test_the_environment_is_the_gateways() -> None:
    piece = translate_message(Kind.LISTENERS, listener_message(FULL))
    tags = read.resolve_environment(piece, {"DEPLOY_ENV": "prod"}).body["telemetry"]["tracing"][
        "tags"
    ]
    assert tags[1:3] == [
        {"name": "environment", "literal": "prod"},
        {"name": "stage", "literal": "none"},
    ]


def test_the_core_takes_it() -> None:
    """All fields, tags and sinks, by the real one."""
    every = AccessLog(COLLECTOR, fields=EVERY_FIELD, rules=("rule's one",))
    source = listener_message(Telemetry(FULL.tracing, (*FULL.access_logs, every)))
    source.address.socket_address.port_value = free_port()
    listener = read.resolve_environment(translate_message(Kind.LISTENERS, source), {})
    table = read.resolve_environment(route_piece(RouteTracing(7, TAGS)), {})
    with Driver() as driver:
        update = {"listeners": [listener.body], "route_tables": [table.body]}
        applied = driver.apply({"version": "1", "full": True, **update})
        assert [state.error for state in applied.listeners] == [None]


def manager_of(message: listener_pb2.Listener) -> Any:
    manager = http_connection_manager_pb2.HttpConnectionManager()
    assert message.filter_chains[0].filters[0].typed_config.Unpack(manager)
    return manager


WHERE = "filter_chains[0].filters[0].typed_config."


def _without_tries(manager: Any) -> None:
    manager.tracing.spawn_upstream_span.value = False


def _verbose(manager: Any) -> None:
    manager.tracing.verbose = True


def _too_much(manager: Any) -> None:
    manager.tracing.random_sampling.value = 101


SAMPLER = "tracing.provider.typed_config.sampler.typed_config"


def _sampler(percent: int | None) -> Callable[[Any], None]:
    """A share in a sampler; ``None``: a sampler of another kind."""

    def change(manager: Any) -> None:
        settings = opentelemetry_pb2.OpenTelemetryConfig()
        manager.tracing.provider.typed_config.Unpack(settings)
        wanted = parent_based_sampler_pb2.ParentBasedSamplerConfig()
        ratio = trace_id_ratio_based_sampler_pb2.TraceIdRatioBasedSamplerConfig()
        ratio.sampling_percentage.numerator = percent or 0
        wanted.wrapped_sampler.typed_config.Pack(ratio)
        settings.sampler.typed_config.Pack(ratio if percent is None else wanted)
        manager.tracing.provider.typed_config.Pack(settings)

    return change


def _other_tracer(manager: Any) -> None:
    manager.tracing.provider.typed_config.Pack(file_pb2.FileAccessLog())


def _metadata_tag(manager: Any) -> None:
    manager.tracing.custom_tags.add(tag="m").metadata.metadata_key.key = "k"


def _other_logger(manager: Any) -> None:
    manager.access_log[0].typed_config.Pack(cel_pb2.ExpressionFilter())


def _other_filter(manager: Any) -> None:
    manager.access_log[0].filter.duration_filter.SetInParent()


def _expression(text: str) -> Callable[[Any], None]:
    def change(manager: Any) -> None:
        entry = manager.access_log[0].filter.extension_filter.typed_config
        entry.Pack(cel_pb2.ExpressionFilter(expression=text))

    return change


def _operator(text: str) -> Callable[[Any], None]:
    def change(manager: Any) -> None:
        body = logs_service_pb2.OpenTelemetryAccessLogConfig()
        manager.access_log[1].typed_config.Unpack(body)
        body.body.string_value = text
        manager.access_log[1].typed_config.Pack(body)

    return change


@pytest.mark.parametrize(
    ("change", "path", "message"),
    [
        (_without_tries, "tracing.spawn_upstream_span", "must be true"),
        (_verbose, "tracing.verbose", "not supported"),
        (_too_much, "tracing.random_sampling", "between 0 and 100"),
        (_sampler(None), SAMPLER, "ParentBasedSamplerConfig"),
        (_sampler(7), f"{SAMPLER}.wrapped_sampler.typed_config.sampling_percentage", "must be 0"),
        (_other_tracer, "tracing.provider.typed_config", "OpenTelemetryConfig"),
        (_metadata_tag, "tracing.custom_tags[4].metadata", "not supported"),
        (_other_logger, "access_log[0].typed_config", "OpenTelemetryAccessLogConfig"),
        (_other_filter, "access_log[0].filter.duration_filter", "not supported"),
        (
            _expression("true"),
            "access_log[0].filter.extension_filter.typed_config.expression",
            "must be `xds.route_metadata",
        ),
        (
            _expression(f"!({read._RULE} in [1])"),
            "access_log[0].filter.extension_filter.typed_config.expression",
            "must list texts",
        ),
        (
            _expression(f'!({read._RULE} in ["another"])'),
            "access_log[0].filter",
            'must except the rules that other logs are for, and no others: rule "2", rule\'s one',
        ),
        (
            _operator("%UPSTREAM_CLUSTER%"),
            "access_log[1].typed_config.body.string_value",
            "%UPSTREAM_CLUSTER% is not known here; known are START_TIME",
        ),
        (_operator("50%"), "access_log[1].typed_config.body.string_value", "no second one"),
    ],
)
def test_refusals(change: Callable[[Any], None], path: str, message: str) -> None:
    source = listener_message(FULL)
    manager = manager_of(source)
    change(manager)
    source.filter_chains[0].filters[0].typed_config.Pack(manager)
    with pytest.raises(UnsupportedFieldError) as refusal:
        translate_message(Kind.LISTENERS, source)
    assert refusal.value.path == WHERE + path
    assert message in refusal.value.message


def test_a_routes_refusal() -> None:
    table = to_resources(snapshot(None, RouteTracing(1)), NodeView("127.0.0.1")).routes["t"]
    changed = route_pb2.RouteConfiguration()
    changed.CopyFrom(table)
    changed.virtual_hosts[0].routes[0].tracing.overall_sampling.numerator = 1
    with pytest.raises(UnsupportedFieldError, match=r"routes\[0\]\.tracing\.overall_sampling"):
        translate_message(Kind.ROUTE_TABLES, changed)
