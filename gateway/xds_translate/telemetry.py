"""Tracing and access logs: of HTTP connection managers, and tracing of routes.

Decides: what of Envoy's messages this gateway follows, and the core's form of them: OpenTelemetry
by gRPC for spans, OpenTelemetry or a file for lines, Envoy's operators for the facts that this
gateway knows too, and dynamic metadata of our namespace for those that Envoy does not.
Leaves to others: the variables of tags' values (``resolve_environment``, told by the runtime),
spans and lines themselves (the core), sending them (``gateway.telemetry``).
Invariants: pure; a log of some rules excludes them from the log of all the others, and from no
other; nothing waits for a collector.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import grpc_service_pb2, substitution_format_string_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.config.trace.v3 import http_tracer_pb2, opentelemetry_pb2
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
from envoy.type.tracing.v3 import custom_tag_pb2
from envoy.type.v3 import percent_pb2
from google.protobuf import any_pb2

from gateway.xds_translate.fields import (
    METADATA,
    UnsupportedFieldError,
    join,
    members,
    only,
    unpack,
)
from gateway.xds_translate.piece import Kind, Piece

FIELDS = (
    *("START_TIME", "TRACE_ID", "SPAN_ID", "LISTENER", "ROUTE", "RULE", "PROTOCOL", "AUTHORITY"),
    *("METHOD", "SOURCE_CLUSTER", "SOURCE_REGION", "DESTINATION_CLUSTER", "DESTINATION_REGION"),
    *("TIER", "ENDPOINT", "TRIES", "BYTES_RECEIVED", "BYTES_SENT", "MESSAGES_RECEIVED"),
    *("MESSAGES_SENT", "DURATION_US", "REQUEST_US", "QUEUE_US", "UPSTREAM_US", "RESPONSE_US"),
    *("GRPC_STATUS", "HTTP_STATUS", "ANSWERED_BY", "RESPONSE_FLAG", "REASON", "PEER"),
    "USER_AGENT",
)
"""The core's fields of an access log, in the order of a line that names none."""

_FIELD_OF_OPERATOR: Mapping[str, str] = {
    "START_TIME": "START_TIME",
    "TRACE_ID": "TRACE_ID",
    f"METADATA(ROUTE:{METADATA}:rule)": "RULE",
    "ROUTE_NAME": "ROUTE",
    "REQ(:AUTHORITY)": "AUTHORITY",
    "UPSTREAM_HOST": "ENDPOINT",
    "UPSTREAM_REQUEST_ATTEMPT_COUNT": "TRIES",
    "BYTES_RECEIVED": "BYTES_RECEIVED",
    "BYTES_SENT": "BYTES_SENT",
    "COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)": "DURATION_US",
    "COMMON_DURATION(DS_RX_BEG:DS_RX_END:us)": "REQUEST_US",
    "COMMON_DURATION(DS_RX_BEG:US_TX_BEG:us)": "QUEUE_US",
    "COMMON_DURATION(US_TX_BEG:US_RX_BEG:us)": "UPSTREAM_US",
    "COMMON_DURATION(US_RX_BEG:DS_TX_END:us)": "RESPONSE_US",
    "GRPC_STATUS(SNAKE_STRING)": "GRPC_STATUS",
    # Spelled in another way by Envoy, and the same by this gateway.
    "GRPC_STATUS": "GRPC_STATUS",
    "RESPONSE_CODE": "HTTP_STATUS",
    "RESPONSE_FLAGS": "RESPONSE_FLAG",
    "RESPONSE_CODE_DETAILS": "REASON",
    "DOWNSTREAM_REMOTE_ADDRESS": "PEER",
    "PROTOCOL": "PROTOCOL",
    "REQ(USER-AGENT)": "USER_AGENT",
    "PATH(NQ)": "METHOD",
    **{f"DYNAMIC_METADATA({METADATA}:{name})": name for name in FIELDS},
}
_HEADER = re.compile(r"REQ\(:?[A-Za-z0-9_.-]+\)")
_DEFAULT = {name.lower(): f"%{name}%" for name in FIELDS}

_RULE = f"xds.route_metadata.filter_metadata['{METADATA}']['rule']"
_EXPRESSION = re.compile(
    rf"{re.escape(_RULE)} in (?P<rules>\[.*\])|"
    rf"(!has\(xds\.route_metadata\) \|\| )?!\({re.escape(_RULE)} in (?P<others>\[.*\])\)",
    re.DOTALL,
)

MILLION = 1_000_000
_PERCENT = 10_000
_DENOMINATORS = {
    percent_pb2.FractionalPercent.HUNDRED: 10_000,
    percent_pb2.FractionalPercent.TEN_THOUSAND: 100,
    percent_pb2.FractionalPercent.MILLION: 1,
}

_Manager = http_connection_manager_pb2.HttpConnectionManager
_Body = dict[str, Any]


def telemetry_of(
    manager: http_connection_manager_pb2.HttpConnectionManager, path: str
) -> _Body | None:
    """What a manager tells about its calls, as the core reads it; ``None``: nothing."""
    tracing = None
    if manager.HasField("tracing"):
        tracing = _tracing(manager.tracing, join(path, "tracing"))
    logs = _access_logs(manager.access_log, join(path, "access_log"))
    if tracing is None and not logs:
        return None
    return {"tracing": tracing, "access_logs": logs}


def route_tracing(source: route_components_pb2.Tracing, path: str) -> _Body:
    """Sampling and tags of a route, in place of its listener's."""
    only(source, path, reads=("random_sampling", "custom_tags"), ignores=("client_sampling",))
    per_million = MILLION
    if source.HasField("random_sampling"):
        share = source.random_sampling
        per_million = share.numerator * _DENOMINATORS[share.denominator]
    where = join(path, "random_sampling")
    return {
        "sampling_per_million": _bounded(per_million, where),
        "tags": _tags(source.custom_tags, join(path, "custom_tags")),
    }


def resolve_environment(piece: Piece, environment: Mapping[str, str]) -> Piece:
    """``piece`` with the values of tags that are variables of ``environment``."""
    if piece.id.kind is Kind.LISTENERS:
        told = piece.body.get("telemetry")
        if told is None or told["tracing"] is None:
            return piece
        tracing = _resolved(told["tracing"], environment)
        return dataclasses.replace(
            piece, body=piece.body | {"telemetry": told | {"tracing": tracing}}
        )
    if piece.id.kind is not Kind.ROUTE_TABLES or not any(map(_traced, _routes(piece.body))):
        return piece
    hosts = [
        host
        | {
            "routes": [
                route | {"tracing": _resolved(route["tracing"], environment)}
                if _traced(route)
                else route
                for route in host["routes"]
            ]
        }
        for host in piece.body["virtual_hosts"]
    ]
    return dataclasses.replace(piece, body=piece.body | {"virtual_hosts": hosts})


def _routes(table: _Body) -> Iterable[_Body]:
    return (route for host in table["virtual_hosts"] for route in host["routes"])


def _traced(route: _Body) -> bool:
    return route.get("tracing") is not None


def _resolved(tracing: _Body, environment: Mapping[str, str]) -> _Body:
    tags = (_of_environment(tag, environment) for tag in tracing["tags"])
    return tracing | {"tags": [tag for tag in tags if tag is not None]}


def _of_environment(tag: _Body, environment: Mapping[str, str]) -> _Body | None:
    if "env" not in tag:
        return tag
    value = environment.get(tag["env"]) or tag["default"]
    return {"name": tag["name"], "literal": value} if value else None


def _tracing(source: http_connection_manager_pb2.HttpConnectionManager.Tracing, path: str) -> _Body:
    only(
        source,
        path,
        reads=("random_sampling", "custom_tags", "provider", "spawn_upstream_span"),
        # About a header that makes a client's word count: this gateway goes by `traceparent`.
        ignores=("client_sampling",),
    )
    if not source.spawn_upstream_span.value:
        raise UnsupportedFieldError(
            join(path, "spawn_upstream_span"), "must be true: each try has a span of its own"
        )
    percent = source.random_sampling.value if source.HasField("random_sampling") else 100.0
    collector, by_caller = _provider(source.provider, join(path, "provider"))
    per_million = _percent(percent, join(path, "random_sampling"))
    return {
        "collector": collector,
        # A caller's decision always counts here.
        "sampling_per_million": 0 if by_caller else per_million,
        "tags": _tags(source.custom_tags, join(path, "custom_tags")),
    }


def _percent(percent: float, path: str) -> int:
    if not 0 <= percent <= 100:
        raise UnsupportedFieldError(path, f"must be between 0 and 100, got {percent}")
    # However small, a share above 0 is one.
    return max(1, round(percent * _PERCENT)) if percent else 0


def _bounded(per_million: int, path: str) -> int:
    if per_million > MILLION:
        raise UnsupportedFieldError(path, "must be at most the whole")
    return per_million


def _provider(provider: http_tracer_pb2.Tracing.Http, path: str) -> tuple[str, bool]:
    """The collector, and whether calls are recorded by their caller's decision alone."""
    only(provider, path, reads=("typed_config",), ignores=("name",))
    where = join(path, "typed_config")
    settings = unpack(provider.typed_config, opentelemetry_pb2.OpenTelemetryConfig, where)
    # The resource is the same for all that a gateway sends.
    only(settings, where, reads=("grpc_service", "sampler"), ignores=("service_name",))
    by_caller = settings.HasField("sampler")
    if by_caller:
        _callers_decision(settings.sampler.typed_config, join(where, "sampler.typed_config"))
    return _collector(settings.grpc_service, join(where, "grpc_service")), by_caller


def _callers_decision(sampler: any_pb2.Any, path: str) -> None:
    """Raises ``UnsupportedFieldError`` for any other sampler than the caller's decision."""
    parent = unpack(sampler, parent_based_sampler_pb2.ParentBasedSamplerConfig, path)
    where = join(path, "wrapped_sampler.typed_config")
    kind = trace_id_ratio_based_sampler_pb2.TraceIdRatioBasedSamplerConfig
    ratio = unpack(parent.wrapped_sampler.typed_config, kind, where)
    if ratio.sampling_percentage.numerator:
        raise UnsupportedFieldError(
            join(where, "sampling_percentage"), "must be 0: a share stands in random_sampling"
        )


def _collector(service: grpc_service_pb2.GrpcService, path: str) -> str:
    only(service, path, reads=("envoy_grpc",), ignores=("timeout",))
    where = join(path, "envoy_grpc")
    only(service.envoy_grpc, where, reads=("cluster_name",))
    name = str(service.envoy_grpc.cluster_name)
    if not name:
        raise UnsupportedFieldError(join(where, "cluster_name"), "is empty")
    return name


def _tags(tags: Sequence[custom_tag_pb2.CustomTag], path: str) -> list[_Body]:
    return [_tag(tag, f"{path}[{index}]") for index, tag in enumerate(tags)]


def _tag(tag: custom_tag_pb2.CustomTag, path: str) -> _Body:
    only(tag, path, reads=("tag", "literal", "environment", "request_header"))
    match tag.WhichOneof("type"):
        case "literal":
            return {"name": tag.tag, "literal": tag.literal.value}
        case "environment":
            default = tag.environment.default_value or None
            return {"name": tag.tag, "env": tag.environment.name, "default": default}
        case "request_header":
            default = tag.request_header.default_value or None
            name = tag.request_header.name.lower()
            return {"name": tag.tag, "header": name, "default": default}
        case _:
            message = "must be one of literal, environment and request_header"
            raise UnsupportedFieldError(path, message)


def _access_logs(logs: Sequence[accesslog_pb2.AccessLog], path: str) -> list[_Body]:
    read = [_access_log(log, f"{path}[{index}]") for index, log in enumerate(logs)]
    named = {rule for body, _ in read for rule in body["routes"] or ()}
    for index, (body, others) in enumerate(read):
        if body["routes"] is None and others != named:
            raise UnsupportedFieldError(
                f"{path}[{index}].filter",
                "a log of all calls must except the rules that other logs are for, and no others: "
                f"{', '.join(sorted(named)) or 'none'}",
            )
    return [body for body, _ in read]


def _access_log(log: accesslog_pb2.AccessLog, path: str) -> tuple[_Body, frozenset[str]]:
    """The log, and the rules that it excepts."""
    only(log, path, reads=("typed_config", "filter"), ignores=("name",))
    rules, others = None, frozenset[str]()
    if log.HasField("filter"):
        rules, others = _filter(log.filter, join(path, "filter"))
    where = join(path, "typed_config")
    if log.typed_config.Is(file_pb2.FileAccessLog.DESCRIPTOR):
        body = _file(unpack(log.typed_config, file_pb2.FileAccessLog, where), where)
    else:
        kind = logs_service_pb2.OpenTelemetryAccessLogConfig
        body = _open_telemetry(unpack(log.typed_config, kind, where), where)
    return body | {"routes": rules}, others


def _filter(
    source: accesslog_pb2.AccessLogFilter, path: str
) -> tuple[list[str] | None, frozenset[str]]:
    only(source, path, reads=("extension_filter",))
    where = join(path, "extension_filter.typed_config")
    wanted = unpack(source.extension_filter.typed_config, cel_pb2.ExpressionFilter, where)
    found = _EXPRESSION.fullmatch(wanted.expression)
    if found is None:
        raise UnsupportedFieldError(
            join(where, "expression"),
            f"must be `{_RULE} in [...]`, or its negation in `!(...)`, which may stand behind "
            "`!has(xds.route_metadata) || `",
        )
    named = _names(found["rules"] or found["others"], join(where, "expression"))
    return (named, frozenset()) if found["rules"] is not None else (None, frozenset(named))


def _names(text: str, path: str) -> list[str]:
    """A list of rules; CEL and JSON spell it alike."""
    try:
        named = json.loads(text)
    except ValueError as failure:
        raise UnsupportedFieldError(path, f"has no list of texts: {failure}") from failure
    if not named or not all(isinstance(name, str) for name in named):
        raise UnsupportedFieldError(path, "must list texts, and at least one")
    return list(named)


def _file(source: file_pb2.FileAccessLog, path: str) -> _Body:
    only(source, path, reads=("path", "log_format"))
    where = join(path, "log_format")
    layout: substitution_format_string_pb2.SubstitutionFormatString = source.log_format
    only(
        layout,
        where,
        reads=("text_format_source", "json_format"),
        # What is empty is left out here in any case.
        ignores=("omit_empty_values",),
    )
    sink = {"file": source.path}
    if layout.HasField("json_format"):
        found = members(layout.json_format, join(where, "json_format"))
        # A struct has no order.
        pairs = [(key, found[key]) for key in sorted(found)]
        return {"sink": sink, "format": _json(pairs, join(where, "json_format"))}
    only(layout.text_format_source, join(where, "text_format_source"), reads=("inline_string",))
    text = layout.text_format_source.inline_string.removesuffix("\n")
    return {"sink": sink, "format": {"text": _template(text, join(where, "text_format_source"))}}


def _open_telemetry(source: logs_service_pb2.OpenTelemetryAccessLogConfig, path: str) -> _Body:
    only(source, path, reads=("common_config", "body", "attributes"))
    where = join(path, "common_config")
    only(
        source.common_config,
        where,
        reads=("grpc_service",),
        ignores=("log_name", "transport_api_version"),
    )
    sink = {"otlp": _collector(source.common_config.grpc_service, join(where, "grpc_service"))}
    if source.body.string_value and source.attributes.values:
        raise UnsupportedFieldError(join(path, "body"), "must not be there beside attributes")
    if source.body.string_value:
        text = _template(source.body.string_value, join(path, "body.string_value"))
        return {"sink": sink, "format": {"text": text}}
    pairs = [(entry.key, entry.value.string_value) for entry in source.attributes.values]
    return {"sink": sink, "format": _json(pairs, join(path, "attributes"))}


def _json(pairs: Sequence[tuple[str, Any]], path: str) -> str | _Body:
    if not pairs:
        raise UnsupportedFieldError(path, "names nothing")
    read = []
    for key, text in pairs:
        where = f"{path}.{key}"
        if not isinstance(text, str):
            raise UnsupportedFieldError(where, f"must be a text, got {text!r}")
        read.append([key, _template(text, where)])
    return "json" if dict(read) == _DEFAULT else {"json": read}


def _template(text: str, path: str) -> str:
    """The text with the core's fields in place of Envoy's operators."""
    parts = text.split("%")
    if len(parts) % 2 == 0:
        raise UnsupportedFieldError(path, "a `%` has no second one")
    # Between two signs stands an operator, or nothing: then they are the sign itself.
    found = [part if index % 2 == 0 else _field(part, path) for index, part in enumerate(parts)]
    return "".join(found)


def _field(operator: str, path: str) -> str:
    if not operator:
        return "%%"
    name = _FIELD_OF_OPERATOR.get(operator)
    if name is not None:
        return f"%{name}%"
    if _HEADER.fullmatch(operator):
        return f"%{operator}%"
    known = ", ".join(it for it in _FIELD_OF_OPERATOR if not it.startswith("DYNAMIC_METADATA"))
    raise UnsupportedFieldError(
        path,
        f"%{operator}% is not known here; known are {known}, REQ(header-name), and as "
        f"DYNAMIC_METADATA({METADATA}:NAME) {', '.join(FIELDS)}",
    )
