"""Routes, and the tester: where this request would go, and why.

Decides: which clusters' objects are followed (those that somebody looked at), when they are
compiled, what is said of a request.
Leaves to others: compiling (``derive.compile``, as agents do), the choice of a route
(``derive.route_trace``), weights and their reasons (the resolver).
Invariants: a cluster is compiled again only when its objects or the federation have changed, beside
the loop; what is shown is what its gateways are given, but for files that only its agent has; no
secret is shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from pydantic import Field

from federation.aio import Latest, cancel_and_wait
from federation.console.answers import Body, bad, body_of, cut, not_found
from federation.console.details import reasons
from federation.console.guard import Caller
from federation.console.live import Live, Made
from federation.derive.compile import CompileInputs, Compiler, CompileSettings
from federation.derive.route_trace import (
    Request,
    Traced,
    ingress,
    match_words,
    table_of,
    trace,
)
from federation.model.base import ClusterId, ServiceName
from federation.model.http import Redirect
from federation.model.objects import ObjectSnapshot
from federation.model.resolved import Reason
from federation.model.snapshot import (
    EndpointSet,
    Forward,
    Listener,
    Refuse,
    Route,
    Snapshot,
    Weighted,
)
from federation.model.view import FederationView
from federation.ports import ObjectSource, PortError, TemporaryError

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ObjectsFrom:
    """Where a cluster's objects come from; ``degraded`` tells what of it cannot be read."""

    source: ObjectSource
    degraded: Callable[[], tuple[str, ...]] = tuple


Sources = Callable[[ClusterId], ObjectsFrom]

FIRST_S = 5.0
"""How long a first look at a cluster's objects may take."""
CONSIDERED_MAX = 200
ENDPOINTS_MAX = 20
HEADERS_MAX = 100
PPM = 1_000_000


class Tested(Body):
    """A request to be traced, as the form has it."""

    cluster: str
    host: str
    method: str
    port: int | None = None
    headers: list[tuple[str, str]] = Field(default_factory=list)
    grpc: bool = True
    http_method: str = "POST"

    def request(self) -> Request:
        """As a gateway would see it. Raises ``RefusalError``."""
        if not self.host or not self.method:
            raise bad("name the host and the method (/package.Service/Method)")
        if len(self.headers) > HEADERS_MAX:
            raise bad(f"more than {HEADERS_MAX} headers")
        return Request(
            host=self.host,
            path=self.method if self.method.startswith("/") else f"/{self.method}",
            headers=tuple((name.strip().lower(), value.strip()) for name, value in self.headers),
            grpc=self.grpc,
            method="POST" if self.grpc else self.http_method.upper(),
        )


@dataclass(frozen=True, slots=True)
class _Compiled:
    """The routing of a cluster, and what it was made of."""

    objects: ObjectSnapshot
    view: FederationView
    snapshot: Snapshot


class _Cluster:
    """One cluster's objects, followed, and their routing."""

    def __init__(self, cluster: ClusterId, found: ObjectsFrom, settings: CompileSettings) -> None:
        self._cluster = cluster
        self._source = found.source
        self._degraded = found.degraded
        self._settings = settings
        self._compiler = Compiler()
        self._compiled: _Compiled | None = None
        self._compiling: asyncio.Task[_Compiled] | None = None
        self.objects: Latest[ObjectSnapshot] = Latest()
        self.following: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"_Cluster({self._cluster})"

    async def follow(self) -> None:
        """Follow the objects for ever."""
        async with aclosing(self._source.snapshots()) as snapshots:
            async for snapshot in snapshots:
                self.objects.set(snapshot)

    async def routing(self, made: Made) -> Snapshot:
        """What the cluster's gateways are given. Raises ``RefusalError`` without objects."""
        objects = await self._first()
        view = made.now.view
        while True:
            known = self._compiled
            if known is not None and known.objects is objects and known.view is view:
                return known.snapshot
            if self._compiling is None or self._compiling.done():
                name = f"routing of {self._cluster}"
                self._compiling = asyncio.create_task(self._compile(objects, view), name=name)
            # Ours and not the request's, which may go away while the thread goes on.
            found = await asyncio.shield(self._compiling)
            if found.objects is objects and found.view is view:
                return found.snapshot

    async def _compile(self, objects: ObjectSnapshot, view: FederationView) -> _Compiled:
        inputs = CompileInputs(
            cluster=self._cluster,
            region=view.members[self._cluster].region,
            objects=objects,
            view=view,
            settings=self._settings,
        )
        compiled = await asyncio.to_thread(self._compiler.compile, inputs)
        self._compiled = _Compiled(objects, view, compiled.snapshot)
        return self._compiled

    async def close(self) -> None:
        """Follow and compile nothing any more."""
        for task in (self.following, self._compiling):
            if task is not None:
                await cancel_and_wait(task)

    async def _first(self) -> ObjectSnapshot:
        if self.following is None or self.following.done():
            self.following = asyncio.create_task(self.follow(), name=f"objects of {self._cluster}")
        found = self.objects.value
        if found is None:
            found = await self._awaited(self.following)
        if found.objects or found.rejected:
            return found
        raise not_found(
            f"no objects of {self._cluster} are in etcd; if they are on its Kubernetes API server, "
            f"start the console with --context {self._cluster}=CONTEXT"
        )

    async def _awaited(self, following: asyncio.Task[None]) -> ObjectSnapshot:
        """The first objects. Raises ``TemporaryError`` with what is in the way."""
        first = asyncio.create_task(_next(self.objects))
        try:
            await asyncio.wait(
                {first, following}, timeout=FIRST_S, return_when=asyncio.FIRST_COMPLETED
            )
            if first.done():
                return first.result()
            if following.done():
                following.result()
        except PortError as error:
            raise TemporaryError(f"reading the objects of {self._cluster}: {error}") from error
        finally:
            await cancel_and_wait(first)
        why = "; ".join(self._degraded()) or "no answer yet; ask again"
        raise TemporaryError(f"reading the objects of {self._cluster}: {why}")


async def _next(objects: Latest[ObjectSnapshot]) -> ObjectSnapshot:
    async with aclosing(objects.changes()) as changes:
        return await anext(changes)


class Routes:
    """Answers about routes."""

    def __init__(self, live: Live, sources: Sources, settings: CompileSettings) -> None:
        self._live = live
        self._sources = sources
        self._settings = settings
        self._clusters: dict[ClusterId, _Cluster] = {}

    def __repr__(self) -> str:
        return f"Routes({sorted(self._clusters)})"

    async def close(self) -> None:
        """Follow nothing any more."""
        for cluster in self._clusters.values():
            await cluster.close()

    async def list(self, request: web.Request, _caller: Caller) -> web.StreamResponse:
        """The rules of one cluster."""
        made = self._made()
        members = sorted(made.now.view.members)
        cluster = request.query.get("cluster") or (members[0] if members else "")
        snapshot = await self._routing(made, cluster)
        wanted = request.query.get("q", "")[:200].lower()
        rows = [
            row
            for listener in ingress(snapshot)
            for row in _rules(snapshot, listener)
            if not wanted or wanted in f"{row[1]} {row[2].rule} {row[2].name}".lower()
        ]
        about, page = cut(request, rows)
        return web.json_response(
            {
                "at": made.now.at,
                "cluster": cluster,
                "clusters": members,
                "listeners": [_listener(snapshot, entry) for entry in ingress(snapshot)],
                "total": sum(len(list(_rules(snapshot, it))) for it in ingress(snapshot)),
                **about,
                "rules": [_rule(*row) for row in page],
            }
        )

    async def test(self, request: web.Request, _caller: Caller) -> web.StreamResponse:
        """Where a request would go."""
        asked = await body_of(request, Tested)
        wanted = asked.request()
        made = self._made()
        snapshot = await self._routing(made, asked.cluster)
        found = _best(snapshot, wanted, asked.port)
        if found is None:
            ports = ", ".join(str(entry.port) for entry in ingress(snapshot)) or "none"
            raise not_found(
                f"{asked.cluster} has no listener on port {asked.port or 'any'}; its ports: {ports}"
            )
        return web.json_response(
            {"at": made.now.at, "cluster": asked.cluster} | _told(made, snapshot, found, wanted)
        )

    def _made(self) -> Made:
        made = self._live.made.value
        if made is None or made.now.at == 0:
            raise TemporaryError("the console has not read the federation yet")
        return made

    async def _routing(self, made: Made, name: str) -> Snapshot:
        cluster = ClusterId(name)
        if cluster not in made.now.view.members:
            known = ", ".join(sorted(made.now.view.members)) or "none"
            raise not_found(f'no cluster is named "{name[:100]}"; known clusters: {known}')
        if cluster not in self._clusters:
            self._clusters[cluster] = _Cluster(cluster, self._sources(cluster), self._settings)
        return await self._clusters[cluster].routing(made)


def _rules(snapshot: Snapshot, listener: Listener) -> list[tuple[Listener, str, Route]]:
    table = table_of(snapshot, listener)
    if table is None:
        return []
    hosts = table.virtual_hosts
    return [(listener, host.hostname, route) for host in hosts for route in host.routes]


def _listener(snapshot: Snapshot, listener: Listener) -> Json:
    table = table_of(snapshot, listener)
    return {
        "name": listener.name,
        "port": listener.port,
        "gateway": listener.gateway,
        "hosts": [host.hostname for host in table.virtual_hosts] if table else [],
    }


def _rule(listener: Listener, host: str, route: Route) -> Json:
    parts = route.action.destinations if isinstance(route.action, Forward) else ()
    return {
        "listener": listener.name,
        "port": listener.port,
        "host": host,
        "rule": route.rule,
        "route": route.name,
        "match": match_words(route.match),
        "action": _action(route),
        "destinations": [
            {"upstream": it.upstream, "weight": it.weight, "sharePpm": share}
            for it, share in _shares(parts)
        ],
        "reason": route.reason,
    }


def _action(route: Route) -> str:
    match route.action:
        case Forward():
            return "forward"
        case Refuse():
            return "refuse"
        case Redirect():
            return "redirect"


def _shares(parts: tuple[Weighted, ...]) -> list[tuple[Weighted, int]]:
    total = sum(part.weight for part in parts)
    return [(part, part.weight * PPM // total if total else 0) for part in parts]


def _best(snapshot: Snapshot, request: Request, port: int | None) -> Traced | None:
    """At the listener on ``port``; without one, where a route takes it, else where a host fits."""
    found = []
    for listener in ingress(snapshot):
        table = table_of(snapshot, listener)
        if table is not None and port in (None, listener.port):
            found.append(trace(table, listener, request))
    return min(found, key=lambda it: (it.route is None, it.host is None), default=None)


def _told(made: Made, snapshot: Snapshot, traced: Traced, request: Request) -> Json:
    route = traced.route
    considered = traced.considered
    told: Json = {
        "listener": {"name": traced.listener.name, "port": traced.listener.port},
        "host": {
            "asked": request.host,
            "matched": traced.host.hostname if traced.host else None,
            "why": traced.why_host,
        },
        "rule": route.rule if route else None,
        "route": route.name if route else None,
        "result": "none" if route is None else _action(route),
        "answer": None,
        "redirect": None,
        "destinations": [],
        "considered": [
            {
                "rule": it.route.rule,
                "route": it.route.name,
                "match": match_words(it.route.match),
                "matched": not it.why_not,
                "why": it.why_not or "all its conditions hold, and no rule before it took the call",
            }
            for it in considered[-CONSIDERED_MAX:]
        ],
        "moreConsidered": max(0, len(considered) - CONSIDERED_MAX),
        "policies": _policies(route) if route else [],
    }
    return told | _outcome(made, snapshot, traced, request)


def _outcome(made: Made, snapshot: Snapshot, traced: Traced, request: Request) -> Json:
    route = traced.route
    if route is None:
        return _none_takes_it(traced, request)
    match route.action:
        case Refuse(message=message, status=status):
            return {
                "answer": {"status": status, "message": message},
                "sentence": f"{route.rule} answers itself with {status}: {message}",
            }
        case Redirect() as redirect:
            where = redirect.hostname or request.host
            return {
                "redirect": {"status": redirect.status, "location": where},
                "sentence": f"{route.rule} sends the client to {where} ({redirect.status})",
            }
        case Forward(destinations=parts):
            told = [_destination(made, snapshot, *part) for part in _shares(parts)]
            places = ", ".join(
                f"{entry['upstream']} ({entry['sharePpm'] / 10_000:g} %)"
                for entry in told
                if entry["sharePpm"]
            )
            return {"destinations": told, "sentence": f"{route.rule} sends it to {places}"}


def _none_takes_it(traced: Traced, request: Request) -> Json:
    if traced.host is None:
        why = f'no route has the host "{request.host}": {traced.why_host}'
    elif traced.grpc_only:
        why = "the rule that matches takes calls of gRPC only"
    else:
        why = f"no rule of host {traced.host.hostname} matches"
    # As the core answers: UNIMPLEMENTED to gRPC, 404 to others.
    answer = "UNIMPLEMENTED" if request.grpc else "404"
    return {
        "answer": {"status": 404, "message": why},
        "sentence": f"the gateway answers {answer}: {why}",
    }


def _destination(made: Made, snapshot: Snapshot, part: Weighted, share: int) -> Json:
    service, target = _meant(part.upstream)
    endpoints = next((it for it in snapshot.endpoint_sets if it.upstream == part.upstream), None)
    return {
        "upstream": part.upstream,
        "service": str(service) if service else None,
        "cluster": target,
        "weight": part.weight,
        "sharePpm": share,
        "reasons": reasons(_why(made, snapshot.cluster, service, target)),
        "tiers": _tiers(endpoints) if endpoints else [],
    }


def _meant(upstream: str) -> tuple[ServiceName | None, str | None]:
    """The service in an upstream's name, and the cluster aimed at (``upstreams.UpstreamRef``)."""
    parts = upstream.partition("@")[0].split("/")
    if len(parts) < 4:
        return None, None
    service = ServiceName(namespace=parts[1], name=parts[2])
    return service, parts[4] if len(parts) > 4 else None


def _why(
    made: Made, caller: ClusterId, service: ServiceName | None, target: str | None
) -> tuple[Reason, ...]:
    resolved = made.now.view.resolved.get(service) if service and target else None
    source = resolved.source(made.now.view.members[caller].region) if resolved else None
    if source is None:
        return ()
    share = next((it for it in source.shares if it.cluster == target), None)
    return (*(share.reasons if share else ()), *source.reasons)


def _tiers(endpoints: EndpointSet) -> list[Json]:
    tiers: dict[int, list[Json]] = {}
    for locality in endpoints.localities:
        tiers.setdefault(locality.priority, []).append(
            {
                "cluster": locality.cluster,
                "region": locality.region,
                "weight": locality.weight,
                "peer": any(it.peer for it in locality.endpoints),
                "endpoints": [f"{it.host}:{it.port}" for it in locality.endpoints[:ENDPOINTS_MAX]],
                "endpointCount": len(locality.endpoints),
                "draining": sum(it.draining for it in locality.endpoints),
            }
        )
    return [{"priority": level, "clusters": tiers[level]} for level in sorted(tiers)]


def _policies(route: Route) -> list[str]:
    """What else the route does, in words."""
    said = []
    if route.timeouts.request_ms is not None:
        said.append(f"a call may take {route.timeouts.request_ms} ms")
    if route.retry is not None:
        on = ", ".join((*route.retry.on, *map(str, route.retry.grpc_codes)))
        said.append(f"up to {route.retry.attempts} retries on {on}")
    if route.rate_limits:
        said.append(f"{len(route.rate_limits)} rate limits")
    if route.mirrors:
        said.append(f"copies to {', '.join(mirror.upstream for mirror in route.mirrors)}")
    if route.fault is not None:
        said.append("injects faults")
    if route.session is not None:
        said.append("keeps a client at one endpoint (session)")
    if route.hash_on:
        said.append("chooses endpoints by hash")
    return said
