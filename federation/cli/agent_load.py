"""Load reports of an agent: where the service stands.

Decides: that it stands beside xDS.
Leaves to others: what it does (``discovery.load_stats``), the port and who is let in.
"""

from __future__ import annotations

from envoy.service.load_stats.v3 import lrs_pb2

from federation.discovery import LoadReports, SideService
from federation.wire import lrs


def loads_beside_discovery(loads: LoadReports) -> SideService:
    """The service as the xDS server serves it."""
    return SideService(
        service=lrs.SERVICE,
        method=lrs.METHOD,
        serve=loads.serve,
        request=lrs_pb2.LoadStatsRequest,
        response=lrs_pb2.LoadStatsResponse,
    )
