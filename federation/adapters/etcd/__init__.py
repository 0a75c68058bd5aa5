"""The store port on etcd (v3 API, 3.4 or newer)."""

from federation.adapters.etcd.access import EtcdAccess
from federation.adapters.etcd.connection import EtcdSettings, EtcdTls
from federation.adapters.etcd.health import EtcdHealth, EtcdMember, health
from federation.adapters.etcd.store import EtcdStore

__all__ = [
    "EtcdAccess",
    "EtcdHealth",
    "EtcdMember",
    "EtcdSettings",
    "EtcdStore",
    "EtcdTls",
    "health",
]
