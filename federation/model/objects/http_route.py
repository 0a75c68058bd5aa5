"""HTTPRoute (Gateway API v1): matches, filters, time-outs, retries and weighted backends.

Decides: its fields, closed sets of values, and what is wrong in one route by itself.
Leaves to others: attachment, precedence and references (``derive.compile``).
Invariants: a filter carries exactly the body that its type names; a type that is not known stays in
the object, for its status to name (Gateway API: ``UnsupportedValue``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, model_validator

from federation.model.duration import DurationMs
from federation.model.objects.gateway import GATEWAY_GROUP, Hostname
from federation.model.objects.metadata import ApiObject, Part, Port
from federation.model.objects.route import (
    BackendObjectReference,
    GRPCHeaderMatch,
    HeaderModifier,
    LocalObjectReference,
    MatchType,
    ParentReference,
    RequestMirror,
    check_body,
)
from federation.model.objects.session import SessionPersistence

RETRY_ATTEMPTS_MAX = 10
"""More tries than this turn an outage into a storm, as for BackendTrafficPolicies."""

_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.\-]*://(\*\.)?[A-Za-z0-9.\-]+(:[0-9]{1,5})?")


def _check_path(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError(f'must begin with "/", got "{text}"')
    return text


def _check_origin(text: str) -> str:
    if not _ORIGIN.fullmatch(text):
        raise ValueError(
            "must be `*` or SCHEME://HOST[:PORT], its host with `*.` in front at most, "
            f'got "{text}"'
        )
    return text


AbsolutePath = Annotated[str, Field(max_length=1024), AfterValidator(_check_path)]
"""A path from the root."""

Origin = Annotated[str, Field(max_length=253), AfterValidator(_check_origin)]
"""Where a page comes from, in the words of its ``Origin`` header, or a pattern of such."""

Method = Annotated[str, Field(pattern=r"^(GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH)$")]
"""A method of HTTP."""

CorsMethod = Annotated[
    str, Field(pattern=r"^(GET|HEAD|POST|PUT|DELETE|CONNECT|OPTIONS|TRACE|PATCH|\*)$")
]
"""A method of HTTP, or all of them."""


class PathMatchType(StrEnum):
    """How paths are compared; ``PathPrefix`` takes whole segments."""

    EXACT = "Exact"
    PATH_PREFIX = "PathPrefix"
    REGULAR_EXPRESSION = "RegularExpression"


class HTTPPathMatch(Part):
    """A match of the path, without its query; case-sensitive."""

    type: str = PathMatchType.PATH_PREFIX
    value: str = Field(default="/", max_length=1024)

    @model_validator(mode="after")
    def _absolute(self) -> HTTPPathMatch:
        if self.type != PathMatchType.REGULAR_EXPRESSION and not self.value.startswith("/"):
            raise ValueError(f'value must begin with "/", got "{self.value}"')
        return self


class HTTPQueryParamMatch(Part):
    """A match of one parameter of the query, name and value case-sensitive."""

    type: str = MatchType.EXACT
    name: str = Field(min_length=1, max_length=256)
    value: str = Field(min_length=1, max_length=1024)


class HTTPRouteMatch(Part):
    """All parts must match; what is absent matches every request."""

    path: HTTPPathMatch = HTTPPathMatch()
    headers: tuple[GRPCHeaderMatch, ...] = Field(default=(), max_length=16)
    query_params: tuple[HTTPQueryParamMatch, ...] = Field(default=(), max_length=16)
    method: Method | None = None


class PathModifierType(StrEnum):
    """What of a path is replaced."""

    REPLACE_FULL_PATH = "ReplaceFullPath"
    REPLACE_PREFIX_MATCH = "ReplacePrefixMatch"


class HTTPPathModifier(Part):
    """Another path, or other text for the prefix that matched; the query stays."""

    type: PathModifierType
    replace_full_path: AbsolutePath | None = None
    replace_prefix_match: str | None = Field(default=None, max_length=1024)

    @model_validator(mode="after")
    def _body_fits_type(self) -> HTTPPathModifier:
        check_body(
            self.type,
            {
                PathModifierType.REPLACE_FULL_PATH: self.replace_full_path,
                PathModifierType.REPLACE_PREFIX_MATCH: self.replace_prefix_match,
            },
        )
        return self


class RedirectScheme(StrEnum):
    """Schemes of a ``Location``."""

    HTTP = "http"
    HTTPS = "https"


class HTTPRequestRedirect(Part):
    """An answer that sends the client elsewhere; what is ``None`` stays as it was asked for."""

    scheme: RedirectScheme | None = None
    hostname: Hostname | None = None
    path: HTTPPathModifier | None = None
    port: Port | None = None
    status_code: int = 302

    @model_validator(mode="after")
    def _redirects(self) -> HTTPRequestRedirect:
        if self.status_code not in (301, 302, 303, 307, 308):
            raise ValueError(f"statusCode must be 301, 302, 303, 307 or 308: {self.status_code}")
        if self.hostname is not None and self.hostname.startswith("*"):
            raise ValueError(f'hostname must be precise, got "{self.hostname}"')
        return self


class HTTPURLRewrite(Part):
    """Another host or path for the backend."""

    hostname: Hostname | None = None
    path: HTTPPathModifier | None = None

    @model_validator(mode="after")
    def _precise(self) -> HTTPURLRewrite:
        if self.hostname is not None and self.hostname.startswith("*"):
            raise ValueError(f'hostname must be precise, got "{self.hostname}"')
        return self


class HTTPCors(Part):
    """Which foreign pages may call; ``max_age`` is in seconds."""

    allow_origins: tuple[Origin, ...] = Field(default=(), max_length=64)
    allow_credentials: bool | None = None
    allow_methods: tuple[CorsMethod, ...] = Field(default=(), max_length=9)
    allow_headers: tuple[str, ...] = Field(default=(), max_length=64)
    expose_headers: tuple[str, ...] = Field(default=(), max_length=64)
    max_age: int = Field(default=5, ge=1, le=2_147_483_647)


class HTTPFilterType(StrEnum):
    """Filters of HTTPRoutes."""

    REQUEST_HEADER_MODIFIER = "RequestHeaderModifier"
    RESPONSE_HEADER_MODIFIER = "ResponseHeaderModifier"
    REQUEST_MIRROR = "RequestMirror"
    REQUEST_REDIRECT = "RequestRedirect"
    URL_REWRITE = "URLRewrite"
    CORS = "CORS"
    EXTENSION_REF = "ExtensionRef"


class HTTPRouteFilter(Part):
    """One filter; the field of its type's name holds its body."""

    type: str
    request_header_modifier: HeaderModifier | None = None
    response_header_modifier: HeaderModifier | None = None
    request_mirror: RequestMirror | None = None
    request_redirect: HTTPRequestRedirect | None = None
    url_rewrite: HTTPURLRewrite | None = None
    cors: HTTPCors | None = None
    extension_ref: LocalObjectReference | None = None

    @model_validator(mode="after")
    def _body_fits_type(self) -> HTTPRouteFilter:
        bodies: Mapping[str, object] = {
            HTTPFilterType.REQUEST_HEADER_MODIFIER: self.request_header_modifier,
            HTTPFilterType.RESPONSE_HEADER_MODIFIER: self.response_header_modifier,
            HTTPFilterType.REQUEST_MIRROR: self.request_mirror,
            HTTPFilterType.REQUEST_REDIRECT: self.request_redirect,
            HTTPFilterType.URL_REWRITE: self.url_rewrite,
            HTTPFilterType.CORS: self.cors,
            HTTPFilterType.EXTENSION_REF: self.extension_ref,
        }
        check_body(self.type, bodies)
        return self


class HTTPBackendRef(BackendObjectReference):
    """A backend with its weight and filters of its own."""

    weight: int = Field(default=1, ge=0, le=1_000_000)
    filters: tuple[HTTPRouteFilter, ...] = Field(default=(), max_length=16)


class HTTPRouteTimeouts(Part):
    """Limits of a request and of each try at a backend; zero is none."""

    request_ms: DurationMs | None = Field(default=None, alias="request")
    backend_request_ms: DurationMs | None = Field(default=None, alias="backendRequest")

    @model_validator(mode="after")
    def _nested(self) -> HTTPRouteTimeouts:
        if self.request_ms and (self.backend_request_ms or 0) > self.request_ms:
            raise ValueError("backendRequest must not be longer than request")
        return self


class HTTPRouteRetry(Part):
    """When a request is tried again (GEP-1731): at failed connections, and at the ``codes``."""

    codes: tuple[Annotated[int, Field(ge=400, le=599)], ...] = Field(default=(), max_length=64)
    attempts: int | None = Field(default=None, ge=0, le=RETRY_ATTEMPTS_MAX)
    backoff_ms: DurationMs | None = Field(default=None, alias="backoff", ge=1)


class HTTPRouteRule(Part):
    """One rule: any of ``matches`` (none: every request), filters, then backends by weight."""

    name: str | None = None
    matches: tuple[HTTPRouteMatch, ...] = Field(default=(), max_length=64)
    filters: tuple[HTTPRouteFilter, ...] = Field(default=(), max_length=16)
    backend_refs: tuple[HTTPBackendRef, ...] = Field(default=(), max_length=16)
    timeouts: HTTPRouteTimeouts | None = None
    retry: HTTPRouteRetry | None = None
    session_persistence: SessionPersistence | None = None

    @model_validator(mode="after")
    def _one_answer(self) -> HTTPRouteRule:
        redirects = [entry for entry in self.filters if entry.request_redirect is not None]
        if redirects and self.backend_refs:
            raise ValueError("a rule with a RequestRedirect has no backendRefs")
        if redirects and any(entry.url_rewrite is not None for entry in self.filters):
            raise ValueError("RequestRedirect and URLRewrite exclude each other")
        return self


class HTTPRouteSpec(Part):
    """What an HTTPRoute asks for; no ``hostnames`` takes the listener's."""

    parent_refs: tuple[ParentReference, ...] = Field(default=(), max_length=32)
    hostnames: tuple[Hostname, ...] = Field(default=(), max_length=16)
    rules: tuple[HTTPRouteRule, ...] = Field(default=(HTTPRouteRule(),), max_length=16)

    @model_validator(mode="after")
    def _names_unique(self) -> HTTPRouteSpec:
        names = [rule.name for rule in self.rules if rule.name is not None]
        for position, name in enumerate(names):
            if name in names[:position]:
                raise ValueError(f'rule name "{name}" stands twice')
        return self


class HTTPRoute(ApiObject):
    """A route of HTTP requests."""

    GROUP: ClassVar[str] = GATEWAY_GROUP
    KIND: ClassVar[str] = "HTTPRoute"
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1", "v1beta1")

    api_version: str = f"{GATEWAY_GROUP}/v1"
    kind: str = "HTTPRoute"
    spec: HTTPRouteSpec
