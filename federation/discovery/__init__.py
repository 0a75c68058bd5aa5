"""The xDS server: serves compiled snapshots to the gateways of one cluster by delta ADS."""

from federation.discovery.load_stats import LoadReports
from federation.discovery.server import DiscoveryError, DiscoveryServer, SideService
from federation.discovery.settings import DiscoverySettings, TlsFiles

__all__ = [
    "DiscoveryError",
    "DiscoveryServer",
    "DiscoverySettings",
    "LoadReports",
    "SideService",
    "TlsFiles",
]
