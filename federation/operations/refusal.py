"""Why something that a person asked for was not done.

Decides: the kinds of refusals.
Leaves to others: the sentence (who refuses), exit codes (``cli``), statuses of HTTP (``console``).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from federation.derive.drain_admission import ServiceImpact


class Why(StrEnum):
    """The kind of a refusal."""

    USAGE = "usage"
    NOT_FOUND = "not_found"
    REFUSED = "refused"


class OperationError(Exception):
    """What was asked for cannot be done; nothing of it was.

    ``impacts`` are what a drain that is refused would do.
    """

    def __init__(self, message: str, why: Why, impacts: Sequence[ServiceImpact] = ()) -> None:
        super().__init__(message)
        self.why = why
        self.impacts = tuple(impacts)
