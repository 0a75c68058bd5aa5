"""The store port in memory: for tests, simulation and dry runs."""

from federation.adapters.memory.store import Backup, MemoryCluster, MemoryStore

__all__ = ["Backup", "MemoryCluster", "MemoryStore"]
