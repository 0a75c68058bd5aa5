"""What only routes of HTTP have: query matches, redirects, rewrites, CORS.

Decides: what of Envoy's redirects, rewrites and CORS filter this gateway acts on.
Leaves to others: the routes themselves (``routes``), carrying out (the core).
Invariants: the CORS filter is configured by routes alone.
"""

from __future__ import annotations

from typing import Any

from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2

from gateway.xds_translate.fields import (
    UnsupportedFieldError,
    join,
    only,
    optional_value,
    whole,
)

CORS = "envoy.filters.http.cors"
"""Name of the filter."""

_RedirectAction = route_components_pb2.RedirectAction
_STATUSES = {
    _RedirectAction.MOVED_PERMANENTLY: 301,
    _RedirectAction.FOUND: 302,
    _RedirectAction.SEE_OTHER: 303,
    _RedirectAction.TEMPORARY_REDIRECT: 307,
    _RedirectAction.PERMANENT_REDIRECT: 308,
}


def query_match(query: route_components_pb2.QueryParameterMatcher, path: str) -> dict[str, Any]:
    """A condition on a parameter."""
    only(query, path, reads=("name", "string_match", "present_match"))
    match query.WhichOneof("query_parameter_match_specifier"):
        case "present_match" if query.present_match:
            return {"name": query.name, "present": True}
        case "string_match":
            return {"name": query.name, **_text(query.string_match, join(path, "string_match"))}
        case other:
            raise UnsupportedFieldError(path, f"must be string_match or present_match, got {other}")


def _text(text: string_pb2.StringMatcher, path: str) -> dict[str, str]:
    only(text, path, reads=("exact", "safe_regex"))
    if text.HasField("safe_regex"):
        return {"regex": text.safe_regex.regex}
    return {"exact": text.exact}


def redirect(action: route_components_pb2.RedirectAction, path: str) -> dict[str, Any]:
    """An answer that sends the client elsewhere."""
    only(
        action,
        path,
        reads=(
            "scheme_redirect",
            "https_redirect",
            "host_redirect",
            "port_redirect",
            "path_redirect",
            "prefix_rewrite",
            "regex_rewrite",
            "response_code",
        ),
    )
    target: dict[str, Any] | None = None
    if action.path_redirect:
        if "?" in action.path_redirect:
            raise UnsupportedFieldError(join(path, "path_redirect"), "must have no query")
        target = {"full": action.path_redirect}
    elif action.prefix_rewrite:
        target = {"prefix": action.prefix_rewrite}
    elif action.HasField("regex_rewrite"):
        target = {"regex": _substitution(action.regex_rewrite, join(path, "regex_rewrite"))}
    return {
        "status": _STATUSES[action.response_code],
        "scheme": "https" if action.https_redirect else action.scheme_redirect or None,
        "host": action.host_redirect or None,
        "port": action.port_redirect or None,
        "path": target,
    }


def rewrite(action: route_components_pb2.RouteAction, path: str) -> dict[str, Any]:
    """What the endpoint is asked for instead, as a field of the core's route."""
    target: dict[str, Any] | None = None
    if action.prefix_rewrite:
        target = {"prefix": action.prefix_rewrite}
    elif action.HasField("regex_rewrite"):
        target = {"regex": _substitution(action.regex_rewrite, join(path, "regex_rewrite"))}
    host = action.host_rewrite_literal or None
    return {"rewrite": {"host": host, "path": target}} if host or target else {}


def _substitution(rewritten: regex_pb2.RegexMatchAndSubstitute, path: str) -> dict[str, str]:
    only(rewritten, path, reads=("pattern", "substitution"))
    return {"pattern": rewritten.pattern.regex, "substitution": rewritten.substitution}


def cors(policy: cors_pb2.CorsPolicy, path: str) -> dict[str, Any]:
    """Which foreign pages may call."""
    only(
        policy,
        path,
        reads=(
            "allow_origin_string_match",
            "allow_methods",
            "allow_headers",
            "expose_headers",
            "max_age",
            "allow_credentials",
            "forward_not_matching_preflights",
        ),
    )
    origins: dict[str, list[str]] = {"exact": [], "regex": []}
    for index, matcher in enumerate(policy.allow_origin_string_match):
        for kind, value in _text(matcher, f"{path}.allow_origin_string_match[{index}]").items():
            origins[kind].append(value)
    seconds = policy.max_age
    if seconds and not seconds.isdecimal():
        raise UnsupportedFieldError(join(path, "max_age"), f"must be a number, got {seconds!r}")
    return {
        "origins": origins["exact"],
        "origin_regexes": origins["regex"],
        "methods": _names(policy.allow_methods),
        "headers": _names(policy.allow_headers.lower()),
        "expose_headers": _names(policy.expose_headers.lower()),
        "credentials": bool(optional_value(policy, "allow_credentials")),
        "max_age_s": int(seconds) if seconds else None,
        "forward_foreign": optional_value(policy, "forward_not_matching_preflights") is not False,
    }


def _names(joined: str) -> list[str]:
    return [name.strip() for name in joined.split(",") if name.strip()]


def empty_status(own: dict[str, Any]) -> dict[str, int]:
    """What a cluster without endpoints answers to requests that are not gRPC."""
    given = own.get("empty_status")
    if given is None:
        return {}
    return {"empty_status": whole(given, "metadata.federation.gateway.empty_status")}
