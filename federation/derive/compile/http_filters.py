"""Filters that only HTTPRoutes have: redirects, rewrites and CORS.

Decides: what each asks for, and which of them cannot be followed.
Leaves to others: where a redirect's port follows the listener (``tables``), what becomes of a rule
with a fault (``rules``).
Invariants: what a gateway would refuse never reaches one.
"""

from __future__ import annotations

import re

from federation.model.http import Cors, PathRewrite, Redirect, Rewrite
from federation.model.objects import (
    HTTPCors,
    HTTPPathModifier,
    HTTPRequestRedirect,
    HTTPRouteFilter,
    HTTPURLRewrite,
)

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+")
_PATH = re.compile(r"/?[!-~]*")
PORTS = {"http": 80, "https": 443}
"""Ports that a scheme means by itself."""


def http_filter(entry: HTTPRouteFilter) -> Redirect | Rewrite | Cors | str | None:
    """What the filter asks for, or what is wrong with it; ``None`` if it is none of these."""
    if entry.request_redirect is not None:
        fault = _path_fault(entry.request_redirect.path)
        return f"requestRedirect.{fault}" if fault else _redirect(entry.request_redirect)
    if entry.url_rewrite is not None:
        fault = _path_fault(entry.url_rewrite.path)
        return f"urlRewrite.{fault}" if fault else _rewrite(entry.url_rewrite)
    if entry.cors is not None:
        return _cors(entry.cors)
    return None


def _redirect(source: HTTPRequestRedirect) -> Redirect:
    scheme = source.scheme.value if source.scheme is not None else ""
    port = source.port
    return Redirect(
        status=source.status_code,
        scheme=scheme,
        hostname=source.hostname or "",
        port=port,
        path=_path(source.path),
        follows_listener=port is None and not scheme,
    )


def _rewrite(source: HTTPURLRewrite) -> Rewrite:
    return Rewrite(hostname=source.hostname or "", path=_path(source.path))


def _path(source: HTTPPathModifier | None) -> PathRewrite | None:
    if source is None:
        return None
    if source.replace_full_path is not None:
        return PathRewrite(source.replace_full_path)
    text = source.replace_prefix_match or ""
    return PathRewrite(text if text.startswith("/") else f"/{text}", prefix=True)


def _path_fault(source: HTTPPathModifier | None) -> str:
    if source is None:
        return ""
    for field, text in (
        ("replaceFullPath", source.replace_full_path),
        ("replacePrefixMatch", source.replace_prefix_match),
    ):
        if text is not None and (not _PATH.fullmatch(text) or "?" in text or "#" in text):
            return f"path.{field}: {text!r} is not a path; write other characters as %XX"
    return ""


def _cors(source: HTTPCors) -> Cors | str:
    for field, names in (
        ("allowHeaders", source.allow_headers),
        ("exposeHeaders", source.expose_headers),
    ):
        for position, name in enumerate(names):
            if not _NAME.fullmatch(name):
                return f"cors.{field}[{position}]: {name!r} is not a name of a header"
    return Cors(
        origins=source.allow_origins,
        methods=source.allow_methods,
        headers=tuple(name.lower() for name in source.allow_headers),
        expose_headers=tuple(name.lower() for name in source.expose_headers),
        credentials=bool(source.allow_credentials),
        max_age_s=source.max_age,
    )
