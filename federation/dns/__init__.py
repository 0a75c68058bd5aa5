"""A small DNS server for ``svc.clusterset.local`` (KEP-1645)."""

from federation.dns.server import DnsServer, DnsSettings, TableSource
from federation.dns.table import DnsTable, ServiceRecord, build_table

__all__ = ["DnsServer", "DnsSettings", "DnsTable", "ServiceRecord", "TableSource", "build_table"]
