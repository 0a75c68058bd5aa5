"""Live traffic of one cluster: what its gateways carry now, and where it goes.

Decides: the shape and the bounds of a report.
Leaves to others: adding up gateways (``derive.traffic``), the stored form (``wire.etcd_traffic``),
who writes it (the agent that leads its cluster).
Invariants: for people and drains' counts only; nothing that moves traffic reads it. A call counts
once in the federation: where it enters a gateway from a client, not where a peer hands it over.
"""

from __future__ import annotations

from pydantic import Field

from federation.model.base import ClusterId, Region, Value

FLOWS_MAX = 500
"""Flows told one by one, the busiest; the others are added up for each cluster they lead to."""

GATEWAYS_MAX = 128
"""Gateways told one by one; of more those that come first by name."""

REPORT_BYTES_MAX = 64 * 1024
"""Size of a stored report; one that would be larger tells fewer flows one by one."""


class GatewayTraffic(Value):
    """One gateway as it was when it reported last.

    ``state`` is its own word (``InSync``, ...), empty for a stock Envoy, which has none.
    ``config_age_s`` is the time since the agent last confirmed its configuration, 0 while in sync.
    ``admin`` is ``HOST:PORT`` of its admin endpoint, which may be reachable from its machine only.
    """

    name: str
    state: str = ""
    config_version: int = 0
    config_age_s: float = 0.0
    calls_open: int = 0
    connections: int = 0
    admin: str = ""


class Flow(Value):
    """Calls from clients of one cluster's gateways to one service in one cluster.

    ``service`` is ``NAMESPACE/NAME``, empty where many are added up. ``imported`` tells calls to a
    clusterset service (which weights, failover and drains are about) from those to a Service of the
    own cluster. ``tier`` is the failover level that served them, 0 the highest. Tries are counted,
    so a call that was tried twice counts at both places.

    ``calls_per_s`` counts what ended, ``errors_per_s`` those of it that failed; the latencies are
    of what ended, as upper bounds of a bucket, ``None`` where nothing did or it is not told.
    ``open`` is what goes on now.
    """

    service: str = ""
    imported: bool = True
    to_cluster: ClusterId = ClusterId("")
    to_region: Region = Region("")
    tier: int = 0
    calls_per_s: float = 0.0
    errors_per_s: float = 0.0
    p50_ms: float | None = None
    p99_ms: float | None = None
    open: int = 0


class TrafficReport(Value):
    """Everything one cluster says of its live traffic.

    ``at`` is the Unix time of its agent, in seconds, and changes with every report; readers do not
    compare it with other agents'. ``truncated`` counts flows that are not told one by one.
    """

    at: float
    cluster: ClusterId
    region: Region
    gateways: tuple[GatewayTraffic, ...] = ()
    flows: tuple[Flow, ...] = ()
    truncated: int = Field(default=0, ge=0)

    def says_the_same(self, other: TrafficReport) -> bool:
        """Whether both differ in nothing but when they were made."""
        return self.model_copy(update={"at": other.at}) == other
