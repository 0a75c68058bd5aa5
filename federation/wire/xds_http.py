"""What only routes of HTTP have, as Envoy spells it: query matches, redirects, rewrites, CORS.

Decides: their spelling. Envoy replaces a prefix by plain text, so where text would leave a slash
too many or too few an expression does it.
Leaves to others: the routes themselves (``xds_routes``), what is asked for (``derive.compile``).
Invariants: a rewritten path begins with one slash and keeps its query.
"""

from __future__ import annotations

import re

from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.http.cors.v3 import cors_pb2
from envoy.type.matcher.v3 import regex_pb2, string_pb2

from federation.model.http import Cors, PathRewrite, QueryMatch, Redirect, Rewrite
from federation.model.snapshot import MatchKind, PathMatch

CORS_FILTER = "envoy.filters.http.cors"

_RedirectAction = route_components_pb2.RedirectAction
_REDIRECT_CODES = {
    301: _RedirectAction.MOVED_PERMANENTLY,
    302: _RedirectAction.FOUND,
    303: _RedirectAction.SEE_OTHER,
    307: _RedirectAction.TEMPORARY_REDIRECT,
    308: _RedirectAction.PERMANENT_REDIRECT,
}
_WHOLE_PATH = "^/.*$"


def query_match(query: QueryMatch) -> route_components_pb2.QueryParameterMatcher:
    """A condition on a parameter."""
    return route_components_pb2.QueryParameterMatcher(
        name=query.name,
        string_match=string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=query.value))
        if query.regex
        else string_pb2.StringMatcher(exact=query.value),
    )


def redirect_action(redirect: Redirect, matched: PathMatch) -> route_components_pb2.RedirectAction:
    """An answer that sends the client elsewhere."""
    message = _RedirectAction(
        scheme_redirect=redirect.scheme,
        host_redirect=redirect.hostname,
        port_redirect=redirect.port or 0,
        response_code=_REDIRECT_CODES[redirect.status],
    )
    if redirect.path is None:
        return message
    if not redirect.path.prefix:
        message.path_redirect = redirect.path.value
    elif (text := _plain_prefix(redirect.path, matched)) is not None:
        message.prefix_rewrite = text
    else:
        message.regex_rewrite.CopyFrom(_without_prefix(matched))
    return message


def set_rewrite(
    message: route_components_pb2.RouteAction, rewrite: Rewrite, matched: PathMatch
) -> None:
    """Another host or path for the backend."""
    if rewrite.hostname:
        message.host_rewrite_literal = rewrite.hostname
    if rewrite.path is None:
        return
    if not rewrite.path.prefix:
        substitution = rewrite.path.value.replace("\\", "\\\\")
        message.regex_rewrite.CopyFrom(_substitution(_WHOLE_PATH, substitution))
    elif (text := _plain_prefix(rewrite.path, matched)) is not None:
        message.prefix_rewrite = text
    else:
        message.regex_rewrite.CopyFrom(_without_prefix(matched))


def _plain_prefix(path: PathRewrite, matched: PathMatch) -> str | None:
    """What to put in the prefix's place; ``None`` where it takes the slash behind along."""
    text = path.value.rstrip("/")
    if matched.kind is MatchKind.PREFIX:
        # The prefix is the first slash: what stands behind it needs one.
        return f"{text}/"
    return text or None


def _without_prefix(matched: PathMatch) -> regex_pb2.RegexMatchAndSubstitute:
    return _substitution(f"^{re.escape(matched.value)}/*", "/")


def _substitution(pattern: str, substitution: str) -> regex_pb2.RegexMatchAndSubstitute:
    return regex_pb2.RegexMatchAndSubstitute(
        pattern=regex_pb2.RegexMatcher(regex=pattern), substitution=substitution
    )


def cors_policy(cors: Cors) -> cors_pb2.CorsPolicy:
    """Which foreign pages may call."""
    message = cors_pb2.CorsPolicy(
        allow_origin_string_match=[_origin(origin) for origin in cors.origins],
        allow_methods=",".join(cors.methods),
        allow_headers=",".join(cors.headers),
        expose_headers=",".join(cors.expose_headers),
        max_age="" if cors.max_age_s is None else str(cors.max_age_s),
    )
    message.allow_credentials.value = cors.credentials
    # The Gateway API has the gateway answer for pages that may not call, too.
    message.forward_not_matching_preflights.value = False
    return message


def _origin(origin: str) -> string_pb2.StringMatcher:
    if origin == "*" or "*" not in origin:
        return string_pb2.StringMatcher(exact=origin)
    before, _, behind = origin.partition("*")
    pattern = rf"{re.escape(before)}[A-Za-z0-9.\-]+{re.escape(behind)}"
    return string_pb2.StringMatcher(safe_regex=regex_pb2.RegexMatcher(regex=pattern))
