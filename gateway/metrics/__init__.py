"""Metrics of the gateway: what there is (``catalogue``), its numbers (``samples``), its forms."""

from __future__ import annotations

from gateway.metrics.certificates import expiries
from gateway.metrics.samples import Family, Reading, families
from gateway.metrics.text import exposition

__all__ = ["Family", "Reading", "expiries", "exposition", "families"]
