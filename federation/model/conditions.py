"""Conditions and statuses as the Gateway API and the MCS API spell them.

Decides: the shape of a status entry of any object.
Leaves to others: when which condition holds (``derive``), how it is written (a ``StatusSink``).
Invariants: every condition carries the generation it was derived from; ``last_transition_time`` is
set by the sink, and only when ``status`` really changed, so that pure code needs no clock.
"""

from __future__ import annotations

from enum import StrEnum

from federation.model.base import Value


class ConditionStatus(StrEnum):
    """Three-valued status of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Value):
    """One condition; ``type`` and ``reason`` are the specifications' exact words."""

    type: str
    status: ConditionStatus
    reason: str
    message: str
    observed_generation: int
    last_transition_time: str | None = None
