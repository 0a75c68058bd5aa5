"""Load balancing of policies: how an endpoint is chosen for each call.

Decides: its fields, bounds and defaults (Envoy Gateway's names where it has them).
Leaves to others: tiers and localities (``derive.compile``), the choice itself (the data plane).
Invariants: consistent hashing names exactly one kind of key; what a type does not use is refused.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, field_validator, model_validator

from federation.model.duration import DurationMs
from federation.model.objects.metadata import Part, Rule

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+")

TABLE_SIZE_MAX = 5_000_011
"""Envoy's own bound of a Maglev table."""

SLOW_START_MS_MAX = 3_600_000
"""A window of an hour is longer than any warm-up."""

HASH_HEADERS_MAX = 8
"""Headers that make one key."""


def _check_token(text: str) -> str:
    if not _TOKEN.fullmatch(text):
        raise ValueError(f'must be usable as the name of a header or cookie, got "{text}"')
    return text


_Token = Annotated[
    str,
    Field(min_length=1, max_length=256, json_schema_extra={"pattern": f"^{_TOKEN.pattern}$"}),
    AfterValidator(_check_token),
]


class LoadBalancerType(StrEnum):
    """Ways to choose an endpoint."""

    LEAST_REQUEST = "LeastRequest"
    """Two at random, then the one with fewer open requests."""
    ROUND_ROBIN = "RoundRobin"
    PEAK_EWMA = "PeakEWMA"
    """Two at random, then by open requests times the time that answers take, with its peaks."""
    CONSISTENT_HASH = "ConsistentHash"
    """The same endpoint for the same key."""


class ConsistentHashType(StrEnum):
    """What the key of a call is."""

    SOURCE_IP = "SourceIP"
    HEADER = "Header"
    HEADERS = "Headers"
    COOKIE = "Cookie"


class HashAlgorithm(StrEnum):
    """How keys are divided: a table (even shares), or a ring (fewest keys move)."""

    MAGLEV = "Maglev"
    RING_HASH = "RingHash"


class HashHeader(Part):
    """A header whose value is (a part of) the key."""

    name: _Token
    """Name of the header; case does not matter."""


class HashCookie(Part):
    """A cookie whose value is the key."""

    name: _Token
    """Name of the cookie, as clients send it."""


class ConsistentHash(Part):
    """The key, in the field of the type's name; a call without it is balanced by open requests.

    ``table_size`` is of Maglev tables: a prime, best a hundred times the number of endpoints.
    """

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.header) == (self.type == 'Header')"
            " && has(self.cookie) == (self.type == 'Cookie')"
            " && (has(self.headers) && self.headers.size() > 0) == (self.type == 'Headers')",
            "the key stands in the field of the type's name, and in no other",
            says="has(self.header) && self.type != 'Header'"
            " ? 'header is not for type ' + self.type"
            " : has(self.headers) && self.headers.size() > 0 && self.type != 'Headers'"
            " ? 'headers is not for type ' + self.type"
            " : has(self.cookie) && self.type != 'Cookie'"
            " ? 'cookie is not for type ' + self.type"
            " : self.type == 'Header' ? 'header is needed for type Header'"
            " : self.type == 'Headers' ? 'headers is needed for type Headers'"
            " : 'cookie is needed for type Cookie'",
        ),
        Rule(
            "!has(self.tableSize) || self.algorithm == 'Maglev'",
            "tableSize is for algorithm Maglev only",
        ),
    )

    type: ConsistentHashType
    """What the key of a call is; the field of that name says which one."""
    header: HashHeader | None = None
    """The header whose value is the key, for type Header."""
    headers: tuple[HashHeader, ...] = Field(default=(), max_length=HASH_HEADERS_MAX)
    """The headers whose values together are the key, for type Headers."""
    cookie: HashCookie | None = None
    """The cookie whose value is the key, for type Cookie."""
    algorithm: HashAlgorithm = HashAlgorithm.MAGLEV
    """Maglev gives even shares, RingHash moves the fewest keys when endpoints change."""
    table_size: int | None = Field(default=None, ge=2, le=TABLE_SIZE_MAX)
    """Size of the Maglev table: a prime, best a hundred times the number of endpoints."""

    @field_validator("table_size")
    @classmethod
    def _is_prime(cls, size: int | None) -> int | None:
        if size is not None and any(size % n == 0 for n in range(2, int(size**0.5) + 1)):
            raise ValueError(f"must be a prime, got {size}")
        return size

    @model_validator(mode="after")
    def _one_key(self) -> ConsistentHash:
        given = {
            "header": self.header is not None,
            "headers": bool(self.headers),
            "cookie": self.cookie is not None,
        }
        wanted = self.type.value.lower()
        for field, is_given in given.items():
            if is_given and field != wanted:
                raise ValueError(f"{field} is not for type {self.type.value}")
        if wanted in given and not given[wanted]:
            raise ValueError(f"{wanted} is needed for type {self.type.value}")
        if self.table_size is not None and self.algorithm is not HashAlgorithm.MAGLEV:
            raise ValueError("tableSize is for algorithm Maglev only")
        return self


class SlowStart(Part):
    """An endpoint that is new or comes back grows into its share during ``window``."""

    window_ms: DurationMs = Field(alias="window", ge=1, le=SLOW_START_MS_MAX)
    """Time in which an endpoint grows into its whole share."""
    min_weight_percent: int = Field(default=10, ge=1, le=100)
    """Percent of its share that it begins with."""


class LoadBalancer(Part):
    """How an endpoint is chosen."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.consistentHash) == (self.type == 'ConsistentHash')",
            "consistentHash is for type ConsistentHash, which needs it",
            says="has(self.consistentHash) ? 'consistentHash is not for type ' + self.type"
            " : 'consistentHash is needed for type ConsistentHash'",
        ),
        Rule(
            "!has(self.slowStart) || self.type != 'ConsistentHash'",
            "slowStart is not for type ConsistentHash: keys are an endpoint's own",
        ),
    )

    type: LoadBalancerType = LoadBalancerType.LEAST_REQUEST
    """LeastRequest, RoundRobin, PeakEWMA (by load and time of answers) or ConsistentHash."""
    consistent_hash: ConsistentHash | None = None
    """The key of type ConsistentHash: calls with the same key go to the same endpoint."""
    slow_start: SlowStart | None = None
    """Gives endpoints that are new or come back their share bit by bit."""

    @model_validator(mode="after")
    def _fits(self) -> LoadBalancer:
        hashes = self.type is LoadBalancerType.CONSISTENT_HASH
        if hashes and self.consistent_hash is None:
            raise ValueError("consistentHash is needed for type ConsistentHash")
        if not hashes and self.consistent_hash is not None:
            raise ValueError(f"consistentHash is not for type {self.type.value}")
        if hashes and self.slow_start is not None:
            raise ValueError("slowStart is not for type ConsistentHash: keys are an endpoint's own")
        return self
