"""Settings of a resolver.

Decides: names, defaults and bounds.
Leaves to others: where values come from (``cli``).
Invariants: checked once when built, never changed afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ResolverSettings:
    """What a deployment decides about a resolver.

    ``identity``: shown to people as the leader; unique among running resolvers.
    ``lease_ttl_s``: how long a dead leader keeps the lead; 3 s lets another lead within 5 s.
    ``retry_max_s``: longest wait between tries to reach the store.
    ``coalesce_s``: how long a change waits for others that come with it (an agent publishes several
    keys at once); it is part of every propagation, so it is short.
    """

    identity: str
    lease_ttl_s: float = 3.0
    retry_max_s: float = 1.0
    coalesce_s: float = 0.005

    def __post_init__(self) -> None:
        if not self.identity:
            raise ValueError("identity must not be empty")
        if not 1.0 <= self.lease_ttl_s <= 60.0:
            raise ValueError(
                f"lease_ttl_s must be between 1 and 60 seconds, got {self.lease_ttl_s}"
            )
        if not 0.0 <= self.coalesce_s <= 1.0:
            raise ValueError(f"coalesce_s must be between 0 and 1 second, got {self.coalesce_s}")
