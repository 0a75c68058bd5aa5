"""Objects kept in the store itself: for machines without Kubernetes, and for the lab."""

from federation.adapters.universal.objects import (
    Applied,
    ApplyOutcome,
    ConflictError,
    UniversalObjects,
)
from federation.adapters.universal.source import UniversalSource
from federation.adapters.universal.statuses import UniversalStatusSink

__all__ = [
    "Applied",
    "ApplyOutcome",
    "ConflictError",
    "UniversalObjects",
    "UniversalSource",
    "UniversalStatusSink",
]
