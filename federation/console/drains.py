"""Drains from the page: try, start, stop - the very operations of ``fedctl drain`` and ``undrain``.

Decides: what a request must hold, that a start names its target twice, what is said of present
traffic that would move.
Leaves to others: what a drain means and when it is refused (``operations.drains``).
Invariants: a preview writes nothing; a start without the target's name typed back writes nothing.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from federation.aio import Latest
from federation.console.answers import Body, RefusalError, bad, body_of
from federation.console.document import drains as shown_drains
from federation.console.guard import Caller
from federation.console.state import Now
from federation.derive.drain import targets
from federation.derive.drain_admission import ServiceImpact
from federation.model.base import ClusterId, Region, ServiceName
from federation.model.drain import Drain
from federation.model.resolved import FULL_SHARE_BP
from federation.operations.drains import DrainRequest, Judged, judge, named, start, undo
from federation.operations.refusal import OperationError, Why
from federation.ports import Store
from federation.wire.etcd_keys import Keys

IMPACTS_MAX = 500

_STATUSES = {Why.USAGE: 400, Why.NOT_FOUND: 404, Why.REFUSED: 409}
_CODES = {Why.USAGE: "bad_request", Why.NOT_FOUND: "not_found", Why.REFUSED: "refused"}


class Asked(Body):
    """What the form asks for."""

    target: str
    service: str | None = None
    over: str = "30s"
    grace: str = "30s"
    expires: str | None = None
    force: bool = False
    confirm: str | None = None

    def request(self, user: str) -> DrainRequest:
        """As ``fedctl drain`` would ask."""
        return DrainRequest(
            target=self.target,
            service=self.service or None,
            over=self.over,
            grace=self.grace,
            expires=self.expires or None,
            force=self.force,
            requested_by=user,
        )


class Drains:
    """Operators' drains."""

    def __init__(self, store: Store, keys: Keys, now: Latest[Now]) -> None:
        self._store = store
        self._keys = keys
        self._now = now

    async def preview(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """What the drain would do."""
        asked = await body_of(request, Asked)
        try:
            judged = await judge(self._store, self._keys, asked.request(_user(caller)))
        except OperationError as error:
            if error.why is not Why.REFUSED:
                raise refused(error) from error
            return web.json_response(
                {"admitted": False, "target": asked.target, "reason": str(error)}
                | {"warnings": [], "confirm": asked.target, "moves": []}
                | impacts(error.impacts)
            )
        return web.json_response(
            {
                "admitted": True,
                "target": judged.drain.target,
                "targetKind": judged.drain.target_kind.value,
                "name": judged.drain.name,
                "warnings": _warnings(judged),
                "reason": None,
                "confirm": judged.drain.target,
                "moves": self._moves(judged.drain),
            }
            | impacts(judged.verdict.impacts)
        )

    async def start(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """Start the drain."""
        asked = await body_of(request, Asked)
        if asked.confirm != asked.target:
            raise bad(
                f'type the name of what is to be drained ("{asked.target}") into `confirm`; '
                "nothing was changed"
            )
        try:
            judged = await judge(self._store, self._keys, asked.request(_user(caller)))
            await start(self._store, self._keys, judged)
        except OperationError as error:
            raise refused(error) from error
        drain = judged.drain
        now = self._now.value
        known = shown_drains(now).get(drain.name) if now else None
        return web.json_response(
            {
                "drain": known or {"name": drain.name, "target": drain.target},
                "message": f"{named(drain)} is draining over {asked.over}",
                "warnings": _warnings(judged),
            },
            status=201,
        )

    async def stop(self, request: web.Request, _caller: Caller) -> web.StreamResponse:
        """Take the drain back."""
        name = request.match_info["name"]
        try:
            undone = await undo(self._store, self._keys, name, described=name)
        except OperationError as error:
            raise refused(error) from error
        message = f"{named(undone.drain)} is no longer drained; its weight returns"
        if undone.read.leader is None:
            message += " when a resolver leads: none does now"
        return web.json_response({"message": message})

    def _moves(self, drain: Drain) -> list[dict[str, Any]]:
        """Present calls into what is drained, by where from and where to they would go."""
        now = self._now.value
        if now is None:
            return []
        found: dict[tuple[str, str, str], float] = {}
        for report in now.traffic.values():
            for flow in report.flows:
                service = _service(flow.service)
                if (
                    not flow.imported
                    or service is None
                    or not targets(drain, flow.to_cluster, flow.to_region, service)
                ):
                    continue
                for cluster, share in _instead(now, drain, service, report.region).items():
                    key = (report.cluster, flow.to_cluster, cluster)
                    found[key] = found.get(key, 0.0) + flow.calls_per_s * share
        return [
            {"caller": caller, "from": old, "to": new, "callsPerS": round(calls, 3)}
            for (caller, old, new), calls in sorted(found.items())
        ]


def _instead(
    now: Now, drain: Drain, service: ServiceName, source: Region
) -> dict[ClusterId, float]:
    """Parts of a drained cluster's calls by the clusters that have weight or stand behind it."""
    resolved = now.view.resolved.get(service)
    entry = resolved.source(source) if resolved else None
    if entry is None:
        return {}
    left = {
        share.cluster: float(share.weight_bp)
        for share in entry.shares
        if share.weight_bp and not targets(drain, share.cluster, share.region, service)
    }
    if not left:
        regions = {cluster: member.region for cluster, member in now.view.members.items()}
        left = {
            member.cluster: float(member.weight)
            for share in entry.shares
            for tier in share.failover[:1]
            for member in tier.members
            if not targets(drain, member.cluster, regions.get(member.cluster, Region("")), service)
        }
    total = sum(left.values()) or float(FULL_SHARE_BP)
    return {cluster: weight / total for cluster, weight in left.items()}


def impacts(found: tuple[ServiceImpact, ...]) -> dict[str, Any]:
    """What a drain does to services, as many as fit."""
    return {
        "impacts": [
            {
                "service": str(impact.service),
                "givenUp": impact.given_up,
                "left": [
                    {"cluster": it.cluster, "ready": it.ready, "capacity": it.capacity}
                    for it in impact.left
                ],
                "unable": [{"cluster": it.cluster, "reason": it.reason} for it in impact.unable],
                "sentence": str(impact),
            }
            for impact in found[:IMPACTS_MAX]
        ],
        "moreImpacts": max(0, len(found) - IMPACTS_MAX),
    }


def refused(error: OperationError) -> RefusalError:
    """What an operation refused, as an answer."""
    more = impacts(error.impacts) if error.impacts else None
    return RefusalError(_STATUSES[error.why], _CODES[error.why], str(error), more=more)


def _warnings(judged: Judged) -> list[str]:
    found = list(judged.verdict.warnings)
    if judged.read.leader is None:
        found.append("no resolver leads now; the drain starts when one does")
    return found


def _user(caller: Caller) -> str:
    principal = caller.principal
    return f"{principal.user} (console)" if principal else "console"


def _service(text: str) -> ServiceName | None:
    namespace, slash, name = text.partition("/")
    return ServiceName(namespace=namespace, name=name) if slash and namespace and name else None
