"""A small DNS server for ``svc.clusterset.local`` (KEP-1645)."""

from federation.dns.metrics import DnsMetrics
from federation.dns.server import DnsServer, DnsSettings, TableSource
from federation.dns.table import DnsTable, HostRecord, ServiceRecord, build_table

__all__ = [
    "DnsMetrics",
    "DnsServer",
    "DnsSettings",
    "DnsTable",
    "HostRecord",
    "ServiceRecord",
    "TableSource",
    "build_table",
]
