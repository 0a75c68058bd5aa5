"""The agent of one member cluster."""

from federation.agent.claim import NameTakenError
from federation.agent.disk import StateDir, StateDirError
from federation.agent.routing import Routing
from federation.agent.service import Agent
from federation.agent.settings import AgentSettings

__all__ = ["Agent", "AgentSettings", "NameTakenError", "Routing", "StateDir", "StateDirError"]
