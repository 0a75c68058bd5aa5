"""ObservabilityPolicy (the federation's kind): what gateways tell about calls, and whom.

Decides: its fields, bounds and defaults, and what is wrong in one policy by itself.
Leaves to others: how policies for a Gateway, its listeners and routes come together
(``derive.compile.observability``), spans and lines themselves (the gateway).
Invariants: a part that is ``None`` was not asked for, and a less specific policy may say it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, field_validator, model_validator

from federation.model.objects.gateway import GATEWAY_GROUP
from federation.model.objects.metadata import (
    ApiObject,
    Name,
    Namespace_,
    OptionalText,
    Part,
    Port,
    Rule,
)
from federation.model.telemetry import KNOWN_FIELDS, TEMPLATE_PATTERN, parse_template

TAGS_MAX = 10
"""Tags of one policy; those of a Gateway, a listener and a route come together, and gateways take
32."""

DEFAULT_SAMPLING_PERCENT = 100.0
"""Of calls, where no policy says it."""

STANDARD_OUTPUT = "/dev/stdout"


class ObservabilityTarget(Part):
    """What a policy speaks about, in its own namespace; ``section_name`` picks a listener."""

    group: str
    """API group of the target: `gateway.networking.k8s.io`, of a ServiceImport
    `multicluster.x-k8s.io`."""
    kind: str
    """Kind of the target: Gateway, GRPCRoute, HTTPRoute or ServiceImport."""
    name: Name
    """Name of the target, in the namespace of the policy."""
    section_name: str | None = None
    """A single listener of the Gateway; left out, all of them."""


class CollectorReference(Part):
    """The Service of an OpenTelemetry Collector that takes OTLP over gRPC without TLS."""

    group: str = Field(default="", json_schema_extra={"default": None})
    """API group of the reference; empty, since it is a Service."""
    kind: str = "Service"
    """Kind of the reference: Service."""
    name: Name
    """Name of the Service."""
    namespace: Namespace_ | None = None
    """Namespace of the Service, left out: the policy's. Another one needs a ReferenceGrant."""
    port: Port
    """Port of the Service that takes OTLP over gRPC, mostly 4317."""


class TracingProviderType(StrEnum):
    """Whom spans are for."""

    OTEL = "OTel"


class TracingProvider(Part):
    """Where spans go."""

    type: TracingProviderType = TracingProviderType.OTEL
    """OTel is the only type: OTLP over gRPC."""
    backend_ref: CollectorReference
    """The collector that gets the spans."""


TagText = Annotated[str, Field(min_length=1, max_length=1024)]


class TagLiteral(Part):
    """The same value for every call."""

    value: TagText
    """The value of the tag."""


class TagEnvironment(Part):
    """A variable of the gateway's own environment."""

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=256)
    """Name of the variable."""
    default_value: OptionalText = Field(default="", max_length=1024)
    """The value where there is no such variable; left out, then there is no tag."""


class TagHeader(Part):
    """A header of the request."""

    name: str = Field(pattern=r"^[A-Za-z0-9!#$%&'*+\-.^_`|~]+$", max_length=256)
    """Name of the header; case does not matter."""
    default_value: OptionalText = Field(default="", max_length=1024)
    """The value where the request has no such header; left out, then there is no tag."""


class CustomTag(Part):
    """An attribute of every span, with exactly one source of its value."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "[has(self.literal), has(self.env), has(self.requestHeader)]"
            ".filter(given, given).size() == 1",
            "needs exactly one of literal, env and requestHeader",
        ),
    )

    name: TagText
    """Name of the attribute."""
    literal: TagLiteral | None = None
    """A value that stands here."""
    env: TagEnvironment | None = None
    """A value from the gateway's environment; only in policies for a Gateway."""
    request_header: TagHeader | None = None
    """A value from the request."""

    @model_validator(mode="after")
    def _one_source(self) -> CustomTag:
        if sum(part is not None for part in (self.literal, self.env, self.request_header)) != 1:
            raise ValueError("needs exactly one of literal, env and requestHeader")
        return self


class Tracing(Part):
    """Spans: one for each call, and one for each try."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.customTags) || self.customTags.all(tag, "
            "self.customTags.exists_one(other, other.name == tag.name))",
            "customTags: each name may stand there once",
        ),
    )

    provider: TracingProvider | None = None
    """Where spans go; left out, where a policy for the listener or the Gateway says."""
    sampling_rate: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    """Percent of the calls that are recorded, fractions too, where the caller has not decided (by
    `traceparent`); left out, what a less specific policy says, else 100."""
    custom_tags: tuple[CustomTag, ...] = Field(default=(), max_length=TAGS_MAX)
    """Attributes of every span, beside those of less specific policies."""

    @model_validator(mode="after")
    def _distinct_tags(self) -> Tracing:
        names = [tag.name for tag in self.custom_tags]
        if len(set(names)) < len(names):
            raise ValueError("customTags: each name may stand there once")
        return self


class AccessLogFormatType(StrEnum):
    """What a line looks like."""

    JSON = "JSON"
    TEXT = "Text"


class AccessLogFormat(Part):
    """What stands in a line. `%FIELD%` stands for a fact about the call, `%%` for the sign."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.type == 'Text' ? has(self.text) && !has(self.fields) : !has(self.text)",
            "type Text needs text and takes no fields, type JSON takes no text",
        ),
        Rule(
            f"!has(self.text) || self.text.matches({TEMPLATE_PATTERN!r})",
            f"a field is unknown, or a `%` stands alone; fields are {KNOWN_FIELDS}",
            field="text",
        ),
        Rule(
            "!has(self.fields) || self.fields.all(key, self.fields[key].matches("
            f"{TEMPLATE_PATTERN!r}))",
            f"a field is unknown, or a `%` stands alone; fields are {KNOWN_FIELDS}",
            field="fields",
        ),
    )

    type: AccessLogFormatType = AccessLogFormatType.JSON
    """JSON is an object a line, Text what `text` says."""
    fields: Mapping[str, Annotated[str, Field(max_length=1024)]] | None = Field(
        default=None, max_length=64
    )
    """Keys of the object, with texts such as `%DURATION_US%`; left out, all fields."""
    text: str | None = Field(default=None, min_length=1, max_length=4096)
    """The line of type Text, such as `%START_TIME% %METHOD% %GRPC_STATUS%`."""

    @field_validator("fields")
    @classmethod
    def _known_fields(cls, fields: Mapping[str, str] | None) -> Mapping[str, str] | None:
        for key, text in (fields or {}).items():
            try:
                parse_template(text)
            except ValueError as failure:
                raise ValueError(f"{key}: {failure}") from failure
        return fields

    @field_validator("text")
    @classmethod
    def _known_words(cls, text: str | None) -> str | None:
        parse_template(text or "")
        return text

    @model_validator(mode="after")
    def _of_the_type(self) -> AccessLogFormat:
        is_text = self.type is AccessLogFormatType.TEXT
        if is_text != (self.text is not None) or (is_text and self.fields is not None):
            raise ValueError("type Text needs text and takes no fields, type JSON takes no text")
        return self


class AccessLogType(StrEnum):
    """Where lines go."""

    OPEN_TELEMETRY = "OpenTelemetry"
    FILE = "File"


class AccessLog(Part):
    """A line for each call."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.type == 'OpenTelemetry' ? has(self.backendRef) && !has(self.path)"
            " : !has(self.backendRef)",
            "type OpenTelemetry needs backendRef and takes no path, type File takes no backendRef",
        ),
    )

    type: AccessLogType
    """OpenTelemetry sends log records by OTLP over gRPC, File writes lines."""
    backend_ref: CollectorReference | None = None
    """The collector that gets the records, of type OpenTelemetry."""
    path: str | None = Field(
        default=None, pattern=r"^(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$", max_length=1024
    )
    """The file of type File, by its absolute path; left out, `/dev/stdout`. A policy for a route
    may name `/dev/stdout` and `/dev/stderr` only."""
    format: AccessLogFormat = AccessLogFormat()
    """What stands in a line; left out, all fields as JSON."""

    @model_validator(mode="after")
    def _of_the_type(self) -> AccessLog:
        remote = self.type is AccessLogType.OPEN_TELEMETRY
        if remote != (self.backend_ref is not None) or (remote and self.path is not None):
            raise ValueError(
                "type OpenTelemetry needs backendRef and takes no path, "
                "type File takes no backendRef"
            )
        return self


class ObservabilityPolicySpec(Part):
    """What a policy asks for."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.tracing) || has(self.accessLog)", "needs tracing, an accessLog or both"),
    )

    target_ref: ObservabilityTarget
    """The Gateway, route or import whose calls the policy is about."""
    tracing: Tracing | None = None
    """Spans of calls and tries."""
    access_log: AccessLog | None = None
    """A line for each call; as a whole in place of that of a less specific policy."""

    @model_validator(mode="after")
    def _says_something(self) -> ObservabilityPolicySpec:
        if self.tracing is None and self.access_log is None:
            raise ValueError("needs tracing, an accessLog or both")
        return self


class ObservabilityPolicy(ApiObject):
    """Traces and access logs of the calls of a Gateway or a route."""

    GROUP: ClassVar[str] = GATEWAY_GROUP
    KIND: ClassVar[str] = "ObservabilityPolicy"
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1alpha3",)

    api_version: str = f"{GATEWAY_GROUP}/v1alpha3"
    kind: str = "ObservabilityPolicy"
    spec: ObservabilityPolicySpec
