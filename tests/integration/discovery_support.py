"""What the tests of discovery and the gateway's shell share: snapshots, a core on paper, waiting.

``PaperCore`` is an implementation of the shell's ``Core`` port that keeps what it is given, checks
references as the native core does, and "binds" every port except those in ``taken_ports``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from operator import itemgetter
from typing import Any

from federation.model.snapshot import (
    Endpoint,
    EndpointSet,
    FilterChain,
    Forward,
    Listener,
    ListenerKind,
    LocalityEndpoints,
    MatchKind,
    PathMatch,
    Route,
    RouteMatch,
    RouteTable,
    Snapshot,
    Upstream,
    VirtualHost,
    Weighted,
)
from gateway.errors import SnapshotRejected

KINDS = ("secrets", "clusters", "endpoints", "route_tables", "listeners")
DEADLINE_S = 10.0


async def eventually(condition: Callable[[], Any | Awaitable[Any]], what: str = "") -> Any:
    """The first true value of ``condition``, looked at often; fails after the deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            value = condition()
            if isinstance(value, Awaitable):
                value = await value
            if value:
                return value
            await asyncio.sleep(0.01)
    raise AssertionError(what)


def _changed(known: dict[str, Any], delta: dict[str, Any]) -> dict[str, Any]:
    """A set of endpoints after a delta, as the core has it."""
    key = itemgetter("cluster_id", "region", "priority")
    out = {*delta["removed"]}
    out |= {it["address"] for place in delta["localities"] for it in place["endpoints"]}
    places = {
        key(place): place
        | {"endpoints": [it for it in place["endpoints"] if it["address"] not in out]}
        for place in known["localities"]
    }
    for place in delta["localities"]:
        kept = places.get(key(place), {"endpoints": []})["endpoints"]
        places[key(place)] = place | {"endpoints": [*kept, *place["endpoints"]]}
    return {"cluster": known["cluster"], "localities": list(places.values())}


class PaperCore:
    """Keeps the configuration it is given."""

    def __init__(self) -> None:
        self.state: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
        self.updates: list[dict[str, Any]] = []
        self.taken_ports: set[int] = set()
        self.health: dict[tuple[str, str], bool] = {}
        self.draining = False
        self.stopped = False
        self.happened: list[dict[str, Any]] = []
        self.load()
        self.methods: list[dict[str, str]] = []

    def start(self) -> None:
        pass

    def apply(self, update: bytes) -> bytes:
        document = json.loads(update)
        state = {kind: dict(entries) for kind, entries in self.state.items()}
        for kind in KINDS:
            key = "cluster" if kind == "endpoints" else "name"
            for entry in document[kind]:
                state[kind][entry[key]] = entry
            for name in document["removed"][kind]:
                state[kind].pop(name, None)
        for delta in document["endpoint_deltas"]:
            known = state["endpoints"][delta["cluster"]]
            state["endpoints"][delta["cluster"]] = _changed(known, delta)
        self._check(document, state)
        self.state = state
        self.updates.append(document)
        return json.dumps({"version": document["version"], "listeners": self._listeners()}).encode()

    def _check(self, document: dict[str, Any], state: dict[str, dict[str, Any]]) -> None:
        for index, table in enumerate(document["route_tables"]):
            for host in table["virtual_hosts"]:
                for route in host["routes"]:
                    for entry in route["action"].get("weighted", ()):
                        if entry["cluster"] not in state["clusters"]:
                            path = f"route_tables[{index}].virtual_hosts[0].routes[0].action"
                            raise SnapshotRejected(path, f"unknown cluster {entry['cluster']}")
                    if route["match"]["path"].get("regex") == "(":
                        path = f"route_tables[{index}].virtual_hosts[0].routes[0].match.path.regex"
                        raise SnapshotRejected(path, "is not a regular expression")
        for listener in state["listeners"].values():
            if listener["route_table"] not in state["route_tables"]:
                name = listener["name"]
                raise SnapshotRejected(f"listeners({name}).route_table", "unknown route table")

    def _listeners(self) -> list[dict[str, Any]]:
        return [
            {
                "name": entry["name"],
                "address": f"{entry['address']}:{entry['port']}",
                "error": "address already in use" if entry["port"] in self.taken_ports else None,
            }
            for entry in self.state["listeners"].values()
        ]

    def set_health(self, cluster: str, address: str, healthy: bool) -> None:
        self.health[cluster, address] = healthy

    def take_limit_demand(self, keys_max: int, all: bool) -> bytes:  # noqa: A002
        return b"[]"

    def take_telemetry(self, max_bytes: int) -> list[tuple[str, str, int, bytes]]:
        return []

    def reopen_logs(self) -> None:
        """It has none."""

    def set_tap(self, filter: bytes | None) -> None:  # noqa: A002
        """It has no calls."""

    def take_tap(self, max: int) -> bytes:  # noqa: A002
        return b""

    def set_limit_shares(self, shares: bytes) -> None:
        raise AssertionError("there are no limits")

    def set_known_methods(self, methods: bytes) -> None:
        self.methods = json.loads(methods)

    def drain(self, grace_ms: int) -> None:
        self.draining = True

    def drained(self) -> bool:
        return self.draining

    def stop(self) -> None:
        self.stopped = True

    def stats(self) -> bytes:
        return b'{"numbers": {}, "calls": [], "answered": {}, "latency_bounds_ms": []}'

    def load(self, *places: dict[str, Any], calls_open: int = 0, connections: int = 0) -> None:
        """What ``loads`` says from now on; latencies are in buckets up to 500 and 1000 µs."""
        self._loads: dict[str, Any] = {"calls_open": calls_open, "connections": connections}
        self._loads |= {"latency_bounds_us": [500, 1000], "places": list(places)}

    def loads(self) -> bytes:
        return json.dumps(self._loads).encode()

    def events(self, max: int) -> bytes:  # noqa: A002 - as in the port
        taken, self.happened = self.happened[:max], self.happened[max:]
        return json.dumps(taken).encode()


def snapshot(
    *endpoints: str,
    upstream: str = "service/app/users/9090",
    port: int = 8080,
    weights: dict[str, int] | None = None,
    regex: str | None = None,
    extra_upstreams: tuple[str, ...] = (),
) -> Snapshot:
    """One plain-text listener whose routes go to ``upstream`` at ``endpoints`` (``host:port``)."""
    names = tuple(sorted({upstream, *extra_upstreams, *(weights or {})}))
    table = f"infra/gw/{port}"
    path = PathMatch(MatchKind.REGEX, regex) if regex else PathMatch(MatchKind.PREFIX, "/")
    route = Route(
        name="app/users/rule-0-match-0",
        rule="app/users/rule-0",
        match=RouteMatch(path, grpc=True),
        action=Forward(
            tuple(Weighted(name, weight) for name, weight in (weights or {upstream: 1}).items())
        ),
    )
    return Snapshot(
        cluster="us-west-1",
        listeners=(Listener(table, ListenerKind.INGRESS, port, (FilterChain("grpc"),), table),),
        route_tables=(RouteTable(table, (VirtualHost("*", (route,)),)),),
        upstreams=tuple(Upstream(name, connect_timeout_ms=1000) for name in names),
        endpoint_sets=tuple(
            EndpointSet(name, (_locality(endpoints),) if endpoints else ()) for name in names
        ),
    )


def _locality(endpoints: tuple[str, ...]) -> LocalityEndpoints:
    entries = []
    for endpoint in endpoints:
        host, _, port = endpoint.rpartition(":")
        entries.append(Endpoint(host, int(port)))
    return LocalityEndpoints("us-west-1", "us-west", 0, 1, tuple(entries))
