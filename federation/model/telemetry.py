"""What gateways tell about calls: spans and lines of the access log.

Decides: the shape of these parts of a snapshot, and the fields that a line can have.
Leaves to others: how they follow from policies (``derive.compile``), their spelling
(``wire.xds_telemetry``), the values of fields (the gateway).
Invariants: immutable; shares are whole numbers in a million; a template that was read has known
fields only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

FIELDS = (
    *("START_TIME", "TRACE_ID", "SPAN_ID", "LISTENER", "ROUTE", "RULE", "PROTOCOL", "AUTHORITY"),
    *("METHOD", "SOURCE_CLUSTER", "SOURCE_REGION", "DESTINATION_CLUSTER", "DESTINATION_REGION"),
    *("TIER", "ENDPOINT", "TRIES", "BYTES_RECEIVED", "BYTES_SENT", "MESSAGES_RECEIVED"),
    *("MESSAGES_SENT", "DURATION_US", "REQUEST_US", "QUEUE_US", "UPSTREAM_US", "RESPONSE_US"),
    *("GRPC_STATUS", "HTTP_STATUS", "ANSWERED_BY", "RESPONSE_FLAG", "REASON", "PEER"),
    "USER_AGENT",
)
"""Facts about a call that a line can tell, in the order of a line that names none."""

HEADER_FIELD = re.compile(r"REQ\((:?[A-Za-z0-9_.-]+)\)")
"""A header of the request, as a field."""

REDACTED = "[redacted]"
"""What is told in place of a value that nobody may see."""

SENSITIVE_HEADERS = frozenset(
    {"authorization", "cookie", "set-cookie", "proxy-authorization", "x-api-key"}
)
"""Headers whose values are never told; the gateway's core has the same."""

KNOWN_FIELDS = f"{', '.join(FIELDS)}, REQ(header-name)"
"""All fields, for messages."""

TEMPLATE_PATTERN = rf"^([^%]|%%|%({'|'.join(FIELDS)}|{HEADER_FIELD.pattern})%)*$"
"""A template as one regular expression, for API servers."""

_PART = re.compile(r"[^%]+|%([^%]*)%")


@dataclass(frozen=True, slots=True)
class TemplateField:
    """A fact about the call in a template, by its word (``REQ(name)`` for a header)."""

    word: str


Template = tuple[str | TemplateField, ...]
"""Texts and fields, in order."""


def parse_template(text: str) -> Template:
    """``text`` with its ``%FIELD%`` read, ``%%`` being the sign itself.

    Raises ``ValueError``, whose message lists the known fields.
    """
    parts: list[str | TemplateField] = []
    at = 0
    while at < len(text):
        found = _PART.match(text, at)
        if found is None:
            raise ValueError("a `%` has no second one; write `%%` for the sign itself")
        word = found[1]
        if word is None or not word:
            parts.append(found[0] if word is None else "%")
        elif word in FIELDS or HEADER_FIELD.fullmatch(word):
            parts.append(TemplateField(word))
        else:
            raise ValueError(f"`%{word}%` is no field; fields are {KNOWN_FIELDS}")
        at = found.end()
    return tuple(parts)


class TagSource(StrEnum):
    """Where a tag's value comes from."""

    LITERAL = "literal"
    ENVIRONMENT = "environment"
    """The environment of the gateway's process."""
    HEADER = "header"
    """The first header of that name of the request."""


@dataclass(frozen=True, slots=True)
class Tag:
    """An attribute of spans: ``value`` itself, or the variable or header of that name.

    ``default`` stands where there is no such variable or header; ``None``: then there is no tag.
    """

    name: str
    source: TagSource
    value: str
    default: str | None = None


@dataclass(frozen=True, slots=True)
class RouteTracing:
    """Sampling of a route's calls and the tags of their spans, in place of the listener's.

    ``sampling_per_million`` is about calls whose caller has not decided.
    """

    sampling_per_million: int
    tags: tuple[Tag, ...] = ()


@dataclass(frozen=True, slots=True)
class Tracing:
    """Spans of a listener's calls go to the upstream ``collector``."""

    collector: str
    sampling_per_million: int
    tags: tuple[Tag, ...] = ()


@dataclass(frozen=True, slots=True)
class AccessLog:
    """A line for each call, to the upstream ``collector`` or, if that is empty, the file ``path``.

    ``text`` is a template for the line; without one it is an object of ``fields``: keys and
    templates. ``rules`` are the rules whose calls it is about; without any it is about the calls of
    all rules but ``except_rules``, and those that no rule takes.
    """

    collector: str = ""
    path: str = ""
    text: str | None = None
    fields: tuple[tuple[str, str], ...] = ()
    rules: tuple[str, ...] = ()
    except_rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What a listener tells about its calls."""

    tracing: Tracing | None = None
    access_logs: tuple[AccessLog, ...] = ()

    @property
    def collectors(self) -> frozenset[str]:
        """The upstreams that it names."""
        named = {log.collector for log in self.access_logs if log.collector}
        return frozenset(named | ({self.tracing.collector} if self.tracing else set()))


DEFAULT_FIELDS = tuple((word.lower(), f"%{word}%") for word in FIELDS)
"""Keys and templates of a line that names none."""
