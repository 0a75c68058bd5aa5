"""Who a cluster is: the uid of its namespace ``kube-system``, which lives as long as the cluster,
and its name in the clusterset, which ClusterProperties tell (KEP-2149).

Decides: what stands for a cluster's identity (the usual convention; Kubernetes itself has none),
and when its ClusterProperties are written: where the kind is served and nobody else wrote them.
Leaves to others: what the identity is for (``agent.claim``), installing the kind.
Invariants: an API server that is away is no failure: the identity is then not known now, or waited
for by who knows of none; a property
that somebody else wrote is never changed, since a cluster's id lasts as long as its membership.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from federation.adapters.kubernetes.connection import Connection, ResourceAbsent
from federation.adapters.kubernetes.statuses import MANAGER
from federation.aio import Backoff, retrying
from federation.derive.mcs_imports import MANAGED_BY
from federation.derive.mcs_imports import MANAGER as OWNER
from federation.ports import PortError

log = logging.getLogger(__name__)

CLUSTER_ID = "cluster.clusterset.k8s.io"
"""The ClusterProperty with the cluster's name in the clusterset."""

CLUSTERSET = "clusterset.k8s.io"
"""The ClusterProperty that says which clusterset the cluster is a member of."""

ASK_S = 3.0
"""How long an agent that knows who it is asks; what it serves meanwhile is on its disk."""

AGAIN_S = 10.0
"""How often properties are looked at: the kind may be installed at any time."""

_GROUP = "about.k8s.io"

ABOUT_VERSIONS = ("v1", "v1beta1", "v1alpha1")
"""Versions of ClusterProperty, all of one form."""


async def cluster_uid(connection: Connection, *, wait: bool) -> str | None:
    """The cluster's identity.

    ``wait`` for an API server that does not tell; without it ``None`` is returned after
    ``ASK_S``.
    """

    async def ask() -> str:
        found = await connection.get("/api/v1/namespaces/kube-system")
        return str(found["metadata"]["uid"])

    def tell(failure: Exception, attempt: int, _wait_s: float) -> None:
        if attempt == 1:
            log.warning("the cluster's identity is not known now", extra={"reason": str(failure)})

    if wait:
        return await retrying(
            ask, on=PortError, backoff=Backoff(first_s=0.2, max_s=3.0), before_wait=tell
        )
    try:
        async with asyncio.timeout(ASK_S):
            return await ask()
    except (PortError, TimeoutError) as error:
        tell(error, 1, 0.0)
        return None


class ClusterProperties:
    """The ClusterProperties of a cluster, in whatever version it serves them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._told: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"ClusterProperties({self._connection.server})"

    async def read(self, name: str) -> str | None:
        """The value of a property; ``None`` without it, or its kind. Raises ``PortError``."""
        version = await self._version()
        if version is None:
            return None
        try:
            found = await self._connection.get(_path(version, name))
        except ResourceAbsent:
            return None
        return str(found.get("spec", {}).get("value", ""))

    async def keep(self, properties: Mapping[str, str]) -> None:
        """See to it that there are ``properties``, for ever."""
        while True:
            for name, value in properties.items():
                try:
                    await self._bring(name, value)
                except PortError as error:
                    self._tell(name, f"not written now: {error}")
            await asyncio.sleep(AGAIN_S)

    async def _version(self) -> str | None:
        try:
            found = await self._connection.get(f"/apis/{_GROUP}")
        except ResourceAbsent:
            return None
        return str(found.get("preferredVersion", {}).get("version", "")) or None

    async def _bring(self, name: str, value: str) -> None:
        version = await self._version()
        if version is None:
            return
        path = _path(version, name)
        try:
            found = await self._connection.get(path)
        except ResourceAbsent:
            found = {}
        known = found.get("spec", {}).get("value")
        labels = found.get("metadata", {}).get("labels") or {}
        if known == value:
            return
        if found and labels.get(MANAGED_BY) != OWNER:
            self._tell(
                name,
                f'says "{known}", and this agent speaks for "{value}"; it is not ours to change: '
                "start the agent with the name that it says, or correct it",
            )
            return
        body = {
            "apiVersion": f"{_GROUP}/{version}",
            "kind": "ClusterProperty",
            "metadata": {"name": name, "labels": {MANAGED_BY: OWNER}},
            "spec": {"value": value},
        }
        await self._connection.apply(path, body, manager=MANAGER)
        log.info("a ClusterProperty is written", extra={"property": name, "value": value})

    def _tell(self, name: str, what: str) -> None:
        """One line for each new trouble."""
        if self._told.get(name) != what:
            self._told[name] = what
            log.warning("ClusterProperty %s", name, extra={"reason": what})


def _path(version: str, name: str) -> str:
    return f"/apis/{_GROUP}/{version}/clusterproperties/{name}"
