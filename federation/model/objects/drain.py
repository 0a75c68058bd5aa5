"""Drain (the federation's own kind): an object that drains a region or cluster while it is there.

Decides: its fields, bounds and defaults; they are those of ``fedctl drain``.
Leaves to others: publishing it (``derive.drain_requests``), who may drain what and whether the rest
can carry it (``derive.drain_admission``), the ramp (``derive.drain``).
Invariants: it belongs to no namespace, since what it drains does not.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from federation.model.drain import RAMP_MS_MAX
from federation.model.duration import DurationMs
from federation.model.objects.metadata import ApiObject, Label, Name, Part

DRAIN_GROUP = "federation.dev"
"""API group of the federation's own kinds."""


class DrainedService(Part):
    """A service of the clusterset, as its exporters name it."""

    namespace: Label
    """Namespace of the service in the clusters that export it."""
    name: Name
    """Name of the exported service."""


class DrainSpec(Part):
    """What is drained, how fast, and until when; the fields are those of `fedctl drain`."""

    target: Label
    """The region or cluster that gives up its traffic; a name that is both means the region.
    Changing it takes the old drain back first."""
    service: DrainedService | None = None
    """Only this service; left out, all services of the target."""
    over_ms: DurationMs = Field(default=30_000, alias="over", le=RAMP_MS_MAX)
    """Ramp of new calls from all to none."""
    grace_ms: DurationMs = Field(default=30_000, alias="grace", le=RAMP_MS_MAX)
    """Time that open streams have after the ramp to move; what is left then ends."""
    expires_ms: DurationMs | None = Field(default=None, alias="expires", ge=1)
    """The drain ends by itself this long after its start; left out, when the object is deleted."""
    force: bool = False
    """Drain even if nothing healthy would be left of a service."""


class DrainRequest(ApiObject):
    """Moves traffic away from a region or cluster as long as it is there."""

    GROUP: ClassVar[str] = DRAIN_GROUP
    KIND: ClassVar[str] = "Drain"
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1alpha1",)
    NAMESPACED: ClassVar[bool] = False

    api_version: str = f"{DRAIN_GROUP}/v1alpha1"
    kind: str = "Drain"
    spec: DrainSpec
