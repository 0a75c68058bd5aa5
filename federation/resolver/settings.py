"""Settings of a resolver.

Decides: names, defaults and bounds.
Leaves to others: where values come from (``cli``).
Invariants: checked once when built, never changed afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

from federation.derive.drain_admission import DrainRight
from federation.derive.resolve_return import ReturnPace


@dataclass(frozen=True, slots=True)
class ResolverSettings:
    """What a deployment decides about a resolver.

    ``identity``: shown to people as the leader; unique among running resolvers.
    ``release``: version of the program, shown to people; empty: not known.
    ``lease_ttl_s``: how long a dead leader keeps the lead; 3 s lets another lead within 5 s.
    ``retry_max_s``: longest wait between tries to reach the store.
    ``coalesce_s``: least time between two steps, so that changes that come together (many agents
    start) are one step; the first one does not wait for it.
    ``return_over_s``: time in which the part of a cluster that could take no calls comes back, at
    most 10 minutes; 0 gives it back at once.
    ``return_hold_s``: how long the return of a cluster that comes and goes is held at its first
    step, and how long a cluster must have been whole to be trusted again; at most 10 minutes.
    ``drain_rights``: what Drain objects of a cluster may drain besides itself and its region. None
    by default, so that who may write objects in one cluster cannot empty another.
    """

    identity: str
    lease_ttl_s: float = 3.0
    retry_max_s: float = 1.0
    coalesce_s: float = 0.005
    return_over_s: float = 5.0
    return_hold_s: float = 10.0
    drain_rights: frozenset[DrainRight] = frozenset()
    release: str = ""

    def __post_init__(self) -> None:
        if not self.identity:
            raise ValueError("identity must not be empty")
        if not 1.0 <= self.lease_ttl_s <= 60.0:
            raise ValueError(
                f"lease_ttl_s must be between 1 and 60 seconds, got {self.lease_ttl_s}"
            )
        if not 0.0 <= self.coalesce_s <= 1.0:
            raise ValueError(f"coalesce_s must be between 0 and 1 second, got {self.coalesce_s}")
        for name in ("return_over_s", "return_hold_s"):
            if not 0.0 <= getattr(self, name) <= 600.0:
                raise ValueError(
                    f"{name} must be between 0 and 600 seconds, got {getattr(self, name)}"
                )

    @property
    def pace(self) -> ReturnPace:
        """How fast parts come back."""
        return ReturnPace(
            over_ms=round(self.return_over_s * 1000), hold_ms=round(self.return_hold_s * 1000)
        )
