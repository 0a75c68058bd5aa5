"""One translated resource: a piece of the core's configuration and what it refers to.

Decides: the kinds of pieces and the shape of one.
Leaves to others: which pieces go together into an update (``gateway.assembly``).
Invariants: a piece never changes; its ``body`` is what the core reads (see the core's own
documentation of its configuration); its text form shows no key material.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from envoy.service.discovery.v3 import discovery_pb2


class Kind(StrEnum):
    """Kinds of pieces; the values are the names of the update's lists."""

    SECRETS = "secrets"
    CLUSTERS = "clusters"
    ENDPOINTS = "endpoints"
    ROUTE_TABLES = "route_tables"
    LISTENERS = "listeners"

    __hash__ = str.__hash__  # an enum's own is Python code, and pieces are looked up by the million


SHARD_MARK = "#"
"""Between the name of a cluster and the number of a shard of its endpoints: ``NAME#3.64`` is number
3 of 64. Our agent cuts large sets so, for gateways alone: one endpoint that changes then costs its
shard."""


class PieceId(NamedTuple):
    """Kind and name; a set of endpoints goes by its cluster's name, a part by that and a number."""

    kind: Kind
    name: str

    @property
    def cluster(self) -> str:
        """The cluster whose endpoints these are."""
        name, mark, number = self.name.rpartition(SHARD_MARK)
        return name if mark and number.replace(".", "", 1).isdigit() else self.name

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class HealthPlan:
    """How the endpoints of a cluster are actively checked by gRPC health.

    ``metadata`` goes with every check; an empty ``service`` asks for the server as a whole.
    """

    interval_ms: int
    timeout_ms: int
    unhealthy_threshold: int
    healthy_threshold: int
    service: str = ""
    metadata: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """A translated resource. ``needs`` must be in force before it can be.

    ``origin`` is the resource as it came by xDS, ``None`` for pieces made here.
    """

    id: PieceId
    body: dict[str, Any] = field(repr=False)
    needs: frozenset[PieceId] = frozenset()
    health: HealthPlan | None = None
    origin: discovery_pb2.Resource | None = field(default=None, repr=False, compare=False)
