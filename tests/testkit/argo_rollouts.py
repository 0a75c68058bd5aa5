"""What the Argo Rollouts plugin for the Gateway API writes to a GRPCRoute (v0.15).

The plugin's module cannot be had everywhere, so its writes are made here, by what it does: read the
route, change it, PUT it whole, and begin again when it has changed meanwhile. It waits for nothing:
its `VerifyWeight` always says yes.

- A weight goes to every reference of the canary's and the stable Service's *name* (kinds are not
  looked at) in every rule that is not the plugin's own; the label says that a rollout is going on.
- A header route is a named rule for each rule that refers to one of both: its matches with the
  headers added, its filters, and the canary alone behind it, as a **Service**, whatever it was.
- Removing managed routes drops those, and every rule whose only backend is the canary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from federation.adapters.kubernetes import Connection
from federation.adapters.kubernetes.connection import ChangedMeanwhile

LABEL, IN_PROGRESS = "rollouts.argoproj.io/gatewayapi-canary", "in-progress"
TRIES = 5
"""Of client-go's ``retry.DefaultRetry``."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Rollout:
    """A rollout over one GRPCRoute."""

    connection: Connection
    route: str
    stable: str
    canary: str
    managed: tuple[str, ...] = ()
    namespace: str = "app"

    @property
    def path(self) -> str:
        """Where the route is."""
        base = "/apis/gateway.networking.k8s.io/v1/namespaces"
        return f"{base}/{self.namespace}/grpcroutes/{self.route}"

    async def read(self) -> Json:
        """The route as the API server has it."""
        return await self.connection.get(self.path)

    async def set_weight(self, weight: int) -> None:
        """``SetWeight``."""

        def change(route: Json) -> None:
            weights = {self.canary: weight, self.stable: 100 - weight}
            found = set()
            for rule in route["spec"]["rules"]:
                if self._is_managed(rule):
                    continue
                for ref in rule.get("backendRefs", []):
                    if ref["name"] in weights:
                        ref["weight"] = weights[ref["name"]]
                        found.add(ref["name"])
            assert found == set(weights), "backendRef was not found in grpcRoute"
            labels = route["metadata"].setdefault("labels", {})
            if weight:
                labels[LABEL] = IN_PROGRESS
            else:
                labels.pop(LABEL, None)

        await self._update(change)

    async def set_header_route(self, name: str, headers: Sequence[Json]) -> None:
        """``SetHeaderRoute``; ``headers`` are matches as a GRPCRoute has them."""

        def change(route: Json) -> None:
            rules = route["spec"]["rules"]
            sources = [
                rule
                for rule in rules
                if {ref["name"] for ref in rule.get("backendRefs", [])} & {self.canary, self.stable}
                and not self._is_managed(rule)
            ]
            made = [
                self._header_rule(name, number, rule, headers)
                for number, rule in enumerate(sources)
            ]
            kept = [rule for rule in rules if not _is_named(rule, (name,))]
            route["spec"]["rules"] = [*kept, *made]

        await self._update(change)

    async def remove_managed_routes(self) -> None:
        """``RemoveManagedRoutes``."""

        def change(route: Json) -> None:
            rules = route["spec"]["rules"]
            route["spec"]["rules"] = [rule for rule in rules if not self._is_managed(rule)]

        await self._update(change)

    def _header_rule(self, name: str, number: int, rule: Json, headers: Sequence[Json]) -> Json:
        canary = next(ref for ref in rule["backendRefs"] if ref["name"] == self.canary)
        matches = copy.deepcopy(rule.get("matches")) or [{}]
        for match in matches:
            match["headers"] = [*match.get("headers", []), *headers]
        backend = {"group": "", "kind": "Service", "name": self.canary, "port": canary["port"]}
        made = {
            "name": name if number == 0 else f"{name}-{number}",
            "matches": matches,
            "backendRefs": [backend],
        }
        if rule.get("filters"):
            made["filters"] = copy.deepcopy(rule["filters"])
        return made

    def _is_managed(self, rule: Json) -> bool:
        backends = [ref["name"] for ref in rule.get("backendRefs", [])]
        return _is_named(rule, self.managed) or backends == [self.canary]

    async def _update(self, change: Callable[[Json], None]) -> None:
        for left in reversed(range(TRIES)):
            route = await self.read()
            change(route)
            try:
                await self.connection.put(self.path, route)
            except ChangedMeanwhile:
                if not left:
                    raise
            else:
                return


def _is_named(rule: Json, names: Sequence[str]) -> bool:
    """Whether a rule is of one of ``names``, alone or with a number behind it."""
    found = rule.get("name", "")
    return any(
        found == name or (found.startswith(f"{name}-") and found[len(name) + 1 :].isdigit())
        for name in names
    )
