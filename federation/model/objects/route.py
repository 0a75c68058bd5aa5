"""GRPCRoute (Gateway API v1): matches, filters and weighted backends.

Decides: its fields, closed sets of values, and what is wrong in one route by itself.
Leaves to others: attachment, precedence and references (``derive.compile``).
Invariants: a rule with backends has a weight sum above zero; a Service or ServiceImport reference
has a port; a filter carries exactly the body that its type names; a type that is not known stays in
the object, for its status to name (Gateway API: ``UnsupportedValue``).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import ClassVar

from pydantic import Field, field_validator, model_validator

from federation.model.objects.gateway import GATEWAY_GROUP, Hostname
from federation.model.objects.metadata import ApiObject, Name, Namespace_, Part, Port
from federation.model.objects.session import SessionPersistence

WEIGHT_MAX = 1_000_000
"""The Gateway API's bound of one weight."""

MCS_GROUP = "multicluster.x-k8s.io"
"""API group of the Multi-Cluster Services API."""


class MatchType(StrEnum):
    """How text is compared."""

    EXACT = "Exact"
    REGULAR_EXPRESSION = "RegularExpression"


class FilterType(StrEnum):
    """Filters of GRPCRoutes."""

    REQUEST_HEADER_MODIFIER = "RequestHeaderModifier"
    RESPONSE_HEADER_MODIFIER = "ResponseHeaderModifier"
    REQUEST_MIRROR = "RequestMirror"
    EXTENSION_REF = "ExtensionRef"


class ParentReference(Part):
    """What a route attaches to; ``namespace`` ``None`` is the route's own."""

    group: str = GATEWAY_GROUP
    kind: str = "Gateway"
    namespace: Namespace_ | None = None
    name: Name
    section_name: str | None = None
    port: Port | None = None


class GRPCMethodMatch(Part):
    """A match of service, method or both. Comparison is case-sensitive."""

    type: str = MatchType.EXACT
    service: str | None = Field(default=None, min_length=1, max_length=1024)
    method: str | None = Field(default=None, min_length=1, max_length=1024)

    @model_validator(mode="after")
    def _names_something(self) -> GRPCMethodMatch:
        if self.service is None and self.method is None:
            raise ValueError("needs a service, a method or both")
        return self


class GRPCHeaderMatch(Part):
    """A match of one header. Names are compared without case, values with it."""

    type: str = MatchType.EXACT
    name: str = Field(min_length=1, max_length=256)
    value: str = Field(min_length=1, max_length=4096)


class GRPCRouteMatch(Part):
    """All of method and headers must match; ``method`` ``None`` matches every call."""

    method: GRPCMethodMatch | None = None
    headers: tuple[GRPCHeaderMatch, ...] = Field(default=(), max_length=16)


class HTTPHeader(Part):
    """A header to add or set."""

    name: str = Field(min_length=1, max_length=256)
    value: str = Field(min_length=1, max_length=4096)


class HeaderModifier(Part):
    """Changes of headers: ``set`` replaces, ``add`` appends, ``remove`` takes away."""

    set: tuple[HTTPHeader, ...] = Field(default=(), max_length=16)
    add: tuple[HTTPHeader, ...] = Field(default=(), max_length=16)
    remove: tuple[str, ...] = Field(default=(), max_length=16)


class BackendObjectReference(Part):
    """A backend without weight; ``namespace`` ``None`` is the route's own."""

    group: str = ""
    kind: str = "Service"
    name: Name
    namespace: Namespace_ | None = None
    port: Port | None = None

    @model_validator(mode="after")
    def _port_present(self) -> BackendObjectReference:
        if self.port is None and (self.group, self.kind) in _KINDS_WITH_PORT:
            raise ValueError(f"a reference to a {self.kind} needs a port")
        return self


_KINDS_WITH_PORT = frozenset(
    {("", "Service"), (MCS_GROUP, "ServiceImport"), (GATEWAY_GROUP, "ServiceImport")}
)


class Fraction(Part):
    """A part of requests."""

    numerator: int = Field(ge=0)
    denominator: int = Field(default=100, ge=1)

    @model_validator(mode="after")
    def _at_most_all(self) -> Fraction:
        if self.numerator > self.denominator:
            raise ValueError("numerator must not exceed denominator")
        return self


class RequestMirror(Part):
    """A copy of requests for another backend; without ``percent`` and ``fraction`` of all."""

    backend_ref: BackendObjectReference
    percent: int | None = Field(default=None, ge=0, le=100)
    fraction: Fraction | None = None

    @model_validator(mode="after")
    def _one_share(self) -> RequestMirror:
        if self.percent is not None and self.fraction is not None:
            raise ValueError("percent and fraction exclude each other")
        return self


class LocalObjectReference(Part):
    """An object of the same namespace."""

    group: str
    kind: str
    name: Name


class GRPCRouteFilter(Part):
    """One filter; the field of its type's name holds its body."""

    type: str
    request_header_modifier: HeaderModifier | None = None
    response_header_modifier: HeaderModifier | None = None
    request_mirror: RequestMirror | None = None
    extension_ref: LocalObjectReference | None = None

    @model_validator(mode="after")
    def _body_fits_type(self) -> GRPCRouteFilter:
        bodies: Mapping[str, object] = {
            FilterType.REQUEST_HEADER_MODIFIER: self.request_header_modifier,
            FilterType.RESPONSE_HEADER_MODIFIER: self.response_header_modifier,
            FilterType.REQUEST_MIRROR: self.request_mirror,
            FilterType.EXTENSION_REF: self.extension_ref,
        }
        check_body(self.type, bodies)
        return self


_FIELDS = {"URLRewrite": "urlRewrite", "CORS": "cors"}
"""Fields that are not simply their type with a small letter."""


def check_body(chosen: str, bodies: Mapping[str, object]) -> None:
    """Raise unless, of the ``bodies`` by type, exactly the one of the ``chosen`` type is there.

    A type that is not among them has no body; that it is not known is for the status to say.
    """
    for kind, body in bodies.items():
        field = _FIELDS.get(kind, kind[0].lower() + kind[1:])
        if kind == chosen and body is None:
            raise ValueError(f"type {chosen} needs the field {field}")
        if kind != chosen and body is not None:
            raise ValueError(f"field {field} does not fit type {chosen}")


class BackendRef(BackendObjectReference):
    """A backend with its weight and filters of its own."""

    weight: int = Field(default=1, ge=0, le=WEIGHT_MAX)
    filters: tuple[GRPCRouteFilter, ...] = Field(default=(), max_length=16)


class GRPCRouteRule(Part):
    """One rule: any of ``matches`` (none: every call), filters, then backends by weight."""

    name: str | None = None
    matches: tuple[GRPCRouteMatch, ...] = Field(default=(), max_length=64)
    filters: tuple[GRPCRouteFilter, ...] = Field(default=(), max_length=16)
    backend_refs: tuple[BackendRef, ...] = Field(default=(), max_length=16)
    session_persistence: SessionPersistence | None = None

    @field_validator("backend_refs")
    @classmethod
    def _weights_above_zero(cls, refs: tuple[BackendRef, ...]) -> tuple[BackendRef, ...]:
        if refs and not any(ref.weight for ref in refs):
            raise ValueError("weight sum is zero")
        return refs


class GRPCRouteSpec(Part):
    """What a GRPCRoute asks for; no ``hostnames`` takes the listener's."""

    parent_refs: tuple[ParentReference, ...] = Field(default=(), max_length=32)
    hostnames: tuple[Hostname, ...] = Field(default=(), max_length=16)
    rules: tuple[GRPCRouteRule, ...] = Field(default=(), max_length=16)

    @field_validator("rules")
    @classmethod
    def _names_unique(cls, rules: tuple[GRPCRouteRule, ...]) -> tuple[GRPCRouteRule, ...]:
        names = [rule.name for rule in rules if rule.name is not None]
        for position, name in enumerate(names):
            if name in names[:position]:
                raise ValueError(f'rule name "{name}" stands twice')
        return rules


class GRPCRoute(ApiObject):
    """A route of gRPC calls."""

    GROUP: ClassVar[str] = GATEWAY_GROUP
    KIND: ClassVar[str] = "GRPCRoute"
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1", "v1alpha2")

    api_version: str = f"{GATEWAY_GROUP}/v1"
    kind: str = "GRPCRoute"
    spec: GRPCRouteSpec
