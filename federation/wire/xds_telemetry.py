"""Telemetry: tracing and access logs of HTTP connection managers, tracing of routes.

Decides: how collectors, sampling, tags and formats are spelled for Envoy.
Leaves to others: what is told (``derive.compile``), the gateway's own form of it
(``gateway.xds_translate.telemetry``, which reads what is written here).
Invariants: Envoy's own messages, which a stock Envoy accepts and follows; a field that Envoy has no
operator for is written as dynamic metadata of our namespace, which is empty there; the value of a
header that nobody may see is not asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from envoy.config.accesslog.v3 import accesslog_pb2
from envoy.config.core.v3 import (
    extension_pb2,
    grpc_service_pb2,
    substitution_format_string_pb2,
)
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
from google.protobuf import wrappers_pb2

from federation.model.telemetry import (
    HEADER_FIELD,
    REDACTED,
    SENSITIVE_HEADERS,
    AccessLog,
    RouteTracing,
    Tag,
    TagSource,
    TemplateField,
    Tracing,
    parse_template,
)
from federation.wire.xds_values import METADATA, duration, packed

_Manager = http_connection_manager_pb2.HttpConnectionManager

SERVICE_NAME = "federation-gateway"
"""``service.name`` of what gateways send."""

COLLECTOR_TIMEOUT_MS = 5_000
"""How long a collector may take to answer."""

_OPERATORS: Mapping[str, str] = {
    "START_TIME": "%START_TIME%",
    "TRACE_ID": "%TRACE_ID%",
    "RULE": f"%METADATA(ROUTE:{METADATA}:rule)%",
    "ROUTE": "%ROUTE_NAME%",
    "AUTHORITY": "%REQ(:AUTHORITY)%",
    "ENDPOINT": "%UPSTREAM_HOST%",
    "TRIES": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
    "BYTES_RECEIVED": "%BYTES_RECEIVED%",
    "BYTES_SENT": "%BYTES_SENT%",
    "DURATION_US": "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%",
    "REQUEST_US": "%COMMON_DURATION(DS_RX_BEG:DS_RX_END:us)%",
    "QUEUE_US": "%COMMON_DURATION(DS_RX_BEG:US_TX_BEG:us)%",
    "UPSTREAM_US": "%COMMON_DURATION(US_TX_BEG:US_RX_BEG:us)%",
    "RESPONSE_US": "%COMMON_DURATION(US_RX_BEG:DS_TX_END:us)%",
    "GRPC_STATUS": "%GRPC_STATUS(SNAKE_STRING)%",
    "HTTP_STATUS": "%RESPONSE_CODE%",
    "RESPONSE_FLAG": "%RESPONSE_FLAGS%",
    "REASON": "%RESPONSE_CODE_DETAILS%",
    "PEER": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "PROTOCOL": "%PROTOCOL%",
    "USER_AGENT": "%REQ(USER-AGENT)%",
    "METHOD": "%PATH(NQ)%",
}
"""Envoy's operators for fields that mean the same there, or nearly."""

_RULE = f"xds.route_metadata.filter_metadata['{METADATA}']['rule']"


def tracing(
    source: Tracing, *, by_caller: bool = False
) -> http_connection_manager_pb2.HttpConnectionManager.Tracing:
    """Tracing of a listener; ``by_caller``: of calls that their caller records, and no others."""
    settings = opentelemetry_pb2.OpenTelemetryConfig(
        grpc_service=_grpc_service(source.collector), service_name=SERVICE_NAME
    )
    share = source.sampling_per_million / 10_000
    if by_caller:
        # A share would be one of the calls that callers record, too. The sampler takes those alone.
        settings.sampler.CopyFrom(_callers_decision())
        share = 100
    return _Manager.Tracing(
        # A client alone does not have a call recorded: what counts is its `traceparent`.
        client_sampling=percent_pb2.Percent(value=0),
        random_sampling=percent_pb2.Percent(value=share),
        custom_tags=_tags(source.tags),
        provider=http_tracer_pb2.Tracing.Http(
            name="envoy.tracers.opentelemetry", typed_config=packed(settings)
        ),
        # A span for each try, beside the call's own.
        spawn_upstream_span=wrappers_pb2.BoolValue(value=True),
    )


def _callers_decision() -> extension_pb2.TypedExtensionConfig:
    """The caller's decision; where there is none, a share of nothing."""
    samplers = "envoy.tracers.opentelemetry.samplers"
    nothing = trace_id_ratio_based_sampler_pb2.TraceIdRatioBasedSamplerConfig(
        sampling_percentage=percent_pb2.FractionalPercent(numerator=0)
    )
    wrapped = extension_pb2.TypedExtensionConfig(
        name=f"{samplers}.trace_id_ratio_based", typed_config=packed(nothing)
    )
    parent = parent_based_sampler_pb2.ParentBasedSamplerConfig(wrapped_sampler=wrapped)
    return extension_pb2.TypedExtensionConfig(
        name=f"{samplers}.parent_based", typed_config=packed(parent)
    )


def route_tracing(source: RouteTracing) -> route_components_pb2.Tracing:
    """Sampling and tags of a route."""
    million = percent_pb2.FractionalPercent.MILLION
    return route_components_pb2.Tracing(
        client_sampling=percent_pb2.FractionalPercent(numerator=0, denominator=million),
        random_sampling=percent_pb2.FractionalPercent(
            numerator=source.sampling_per_million, denominator=million
        ),
        custom_tags=_tags(source.tags),
    )


def access_log(source: AccessLog) -> accesslog_pb2.AccessLog:
    """One access log of a listener."""
    if source.collector:
        message = accesslog_pb2.AccessLog(
            name="envoy.access_loggers.open_telemetry",
            typed_config=packed(_open_telemetry(source)),
        )
    else:
        message = accesslog_pb2.AccessLog(
            name="envoy.access_loggers.file", typed_config=packed(_file(source))
        )
    expression = _expression(source)
    if expression:
        wanted = cel_pb2.ExpressionFilter(expression=expression)
        message.filter.extension_filter.name = "envoy.access_loggers.extension_filters.cel"
        message.filter.extension_filter.typed_config.CopyFrom(packed(wanted))
    return message


def _expression(source: AccessLog) -> str:
    """Which calls have a line, in CEL. Lists are spelled as in JSON, which CEL takes too."""
    if source.rules:
        return f"{_RULE} in {json.dumps(list(source.rules))}"
    if source.except_rules:
        # Without a route there is no metadata, and an expression that fails would leave no line.
        return f"!has(xds.route_metadata) || !({_RULE} in {json.dumps(list(source.except_rules))})"
    return ""


def _open_telemetry(source: AccessLog) -> logs_service_pb2.OpenTelemetryAccessLogConfig:
    message = logs_service_pb2.OpenTelemetryAccessLogConfig()
    message.common_config.log_name = SERVICE_NAME
    message.common_config.transport_api_version = 2
    message.common_config.grpc_service.CopyFrom(_grpc_service(source.collector))
    if source.text is not None:
        message.body.string_value = operators(source.text)
    for key, text in source.fields:
        message.attributes.values.add(key=key).value.string_value = operators(text)
    return message


def _file(source: AccessLog) -> file_pb2.FileAccessLog:
    layout = substitution_format_string_pb2.SubstitutionFormatString()
    if source.text is not None:
        # What is empty is `-` in texts, and left out of objects.
        layout.text_format_source.inline_string = f"{operators(source.text)}\n"
    else:
        layout.omit_empty_values = True
        layout.json_format.update({key: operators(text) for key, text in source.fields})
    return file_pb2.FileAccessLog(path=source.path, log_format=layout)


def operators(template: str) -> str:
    """The template with Envoy's operators in place of fields."""
    return "".join(
        _operator(part.word) if isinstance(part, TemplateField) else part.replace("%", "%%")
        for part in parse_template(template)
    )


def _operator(word: str) -> str:
    header = HEADER_FIELD.fullmatch(word)
    if header is not None:
        return REDACTED if header[1].lower() in SENSITIVE_HEADERS else f"%{word}%"
    return _OPERATORS.get(word) or f"%DYNAMIC_METADATA({METADATA}:{word})%"


def _grpc_service(collector: str) -> grpc_service_pb2.GrpcService:
    message = grpc_service_pb2.GrpcService(timeout=duration(COLLECTOR_TIMEOUT_MS))
    message.envoy_grpc.cluster_name = collector
    return message


def _tags(tags: Iterable[Tag]) -> list[custom_tag_pb2.CustomTag]:
    return [_tag(tag) for tag in tags]


def _tag(tag: Tag) -> custom_tag_pb2.CustomTag:
    message = custom_tag_pb2.CustomTag(tag=tag.name)
    match tag.source:
        case TagSource.LITERAL:
            message.literal.value = tag.value
        case TagSource.ENVIRONMENT:
            message.environment.name = tag.value
            message.environment.default_value = tag.default or ""
        case TagSource.HEADER if tag.value in SENSITIVE_HEADERS:
            message.literal.value = REDACTED
        case TagSource.HEADER:
            message.request_header.name = tag.value
            message.request_header.default_value = tag.default or ""
    return message
