"""The agent of one member cluster."""

from federation.agent.claim import NameTakenError
from federation.agent.disk import StateDir, StateDirError
from federation.agent.observe import OBSERVED
from federation.agent.routing import Routing
from federation.agent.service import Agent
from federation.agent.settings import AgentSettings

__all__ = [
    "OBSERVED",
    "Agent",
    "AgentSettings",
    "NameTakenError",
    "Routing",
    "StateDir",
    "StateDirError",
]
