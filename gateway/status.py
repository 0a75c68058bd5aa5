"""What a gateway says about itself: the one state that readiness, metrics and logs agree on.

Decides: the words and their order of precedence.
Leaves to others: the facts (``shell``), the answers (``admin``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version


class State(StrEnum):
    """Where a gateway stands. All but ``STARTING`` serve traffic; ``DRAINING`` ends it."""

    STARTING = "Starting"
    SERVING_FROM_SNAPSHOT = "ServingFromSnapshot"
    IN_SYNC = "InSync"
    AGENT_AWAY = "AgentAway"
    DRAINING = "Draining"


@dataclass(frozen=True, slots=True)
class Status:
    """State with its age. ``age_s``: since the configuration was last confirmed by the agent."""

    name: str
    cluster: str
    state: State
    version: int
    age_s: float | None
    listeners: dict[str, str | None]
    refused: dict[str, str]
    why: str | None = None
    region: str = ""
    """Of its cluster; empty when it was not told."""

    @property
    def ready(self) -> bool:
        """Whether clients may be sent here: there is a configuration, and a port that serves."""
        serving = self.state not in (State.STARTING, State.DRAINING)
        open_ports = [name for name, error in self.listeners.items() if error is None]
        return serving and bool(open_ports or not self.listeners)


def release() -> str:
    """The version of this program; ``unknown`` where it is not installed."""
    try:
        return version("grpc-federation")
    except PackageNotFoundError:
        return "unknown"
