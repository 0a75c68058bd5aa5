"""Fault injection in a policy: delays and refusals on purpose, for drills and tests.

Decides: its fields, bounds and defaults, by Envoy Gateway's names.
Leaves to others: drawing by percentage and carrying it out (the data plane).
Invariants: an abort has exactly one status; a percentage means so many of 100 calls.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from federation.model.duration import DurationMs
from federation.model.objects.metadata import Part, Rule

DELAY_MS_MAX = 3_600_000
"""Longest delay: an hour."""

Percentage = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
"""Of calls; what is finer than a ten-thousandth of a percent is rounded."""


class FaultDelay(Part):
    """Calls that wait before they go on; their deadlines go on meanwhile."""

    fixed_delay_ms: DurationMs = Field(alias="fixedDelay", ge=1, le=DELAY_MS_MAX)
    """How long a call waits before it goes on."""
    percentage: Percentage = 100.0
    """Percent of the calls that wait."""


class FaultAbort(Part):
    """Calls that are answered by the gateway; after the delay, when both befall a call."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.httpStatus) != has(self.grpcStatus)",
            "needs exactly one of httpStatus and grpcStatus",
        ),
    )

    http_status: int | None = Field(default=None, ge=200, le=599)
    """HTTP status that the gateway answers with."""
    grpc_status: int | None = Field(default=None, ge=0, le=16)
    """gRPC status code that the gateway answers with."""
    percentage: Percentage = 100.0
    """Percent of the calls that are answered so."""

    @model_validator(mode="after")
    def _one_status(self) -> FaultAbort:
        if (self.http_status is None) == (self.grpc_status is None):
            raise ValueError("needs exactly one of httpStatus and grpcStatus")
        return self


class FaultInjection(Part):
    """Delay and abort are drawn apart from each other."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.delay) || has(self.abort)", "needs a delay, an abort or both"),
    )

    delay: FaultDelay | None = None
    """Calls that wait before they go on."""
    abort: FaultAbort | None = None
    """Calls that the gateway answers itself with an error."""

    @model_validator(mode="after")
    def _does_something(self) -> FaultInjection:
        if self.delay is None and self.abort is None:
            raise ValueError("needs a delay, an abort or both")
        return self
