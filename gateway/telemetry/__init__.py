"""Spans, log records and metrics on their way from the core to collectors."""

from __future__ import annotations

from gateway.telemetry.sender import TelemetrySender

__all__ = ["TelemetrySender"]
