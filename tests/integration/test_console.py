"""The console's API on a real etcd with a real resolver: what it shows, drains, live events."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from federation.adapters.clock import SystemClock
from federation.adapters.etcd import EtcdSettings, EtcdStore
from federation.adapters.universal import UniversalObjects
from federation.aio import Latest, cancel_and_wait
from federation.console import Access, Limits
from federation.console.history import Timeline, Wanted
from federation.console.live import Event, Live
from federation.model.base import ClusterId, Region
from federation.model.traffic_report import Flow, GatewayTraffic, TrafficReport
from federation.ports import Put
from federation.wire.etcd_keys import Keys
from federation.wire.etcd_traffic import traffic_to_bytes
from federation.wire.manifest_yaml import parse_documents
from federation.wire.manifests import decode_all
from tests.testkit.console import (
    Page,
    Published,
    eventually,
    page,
    running_console,
    running_resolver,
    settings,
)
from tests.testkit.etcd import EtcdServer, running_etcd

_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class World:
    """An etcd with two clusters in it, followed by a console."""

    store: EtcdStore
    keys: Keys
    published: Published
    page: Page


@pytest.fixture
async def world(etcd_server: EtcdServer) -> AsyncIterator[World]:
    keys = Keys(f"/console-{next(_numbers)}/")
    store = EtcdStore(EtcdSettings(endpoints=(etcd_server.endpoint,)))
    published = Published(store, keys)
    for name in ("west", "east"):
        await published.join(name, f"{name}-1")
        await published.export(name, f"{name}-1", ["users", "orders"])
    await published.weights("west", "users", west=80, east=20)
    async with (
        running_resolver(store, keys),
        running_console(etcd_server.endpoint, keys.prefix) as base,
        page(base) as opened,
    ):
        await opened.until("/api/overview", lambda it: it["totals"]["services"] == 2)
        await opened.until("/api/overview", lambda it: it["totals"]["unresolved"] == 0)
        await opened.open()
        yield World(store, keys, published, opened)
    await store.close()


def report(cluster: str, *flows: Flow) -> TrafficReport:
    return TrafficReport(
        at=1.0,
        cluster=ClusterId(cluster),
        region=Region(f"{cluster}-1"),
        gateways=(GatewayTraffic(name=f"{cluster}-gw-1", state="InSync", config_version=7),),
        flows=flows,
    )


def flow(to: str, calls: float, *, errors: float = 0.0, p99: float | None = None) -> Flow:
    return Flow(
        service="app/users",
        to_cluster=ClusterId(to),
        to_region=Region(f"{to}-1"),
        calls_per_s=calls,
        errors_per_s=errors,
        p99_ms=p99,
        open=2,
    )


async def test_the_overview_is_the_federation_with_its_live_traffic(world: World) -> None:
    sent = report("west", flow("west", 80.0, p99=2.0), flow("east", 20.5, errors=0.5, p99=9.0))
    await world.store.commit(
        [Put(world.keys.traffic_of(ClusterId("west")), traffic_to_bytes(sent))]
    )
    found = await world.page.until("/api/overview", lambda it: len(it["flows"]) == 2)
    assert found["regions"] == {"east-1": {"clusters": ["east"]}, "west-1": {"clusters": ["west"]}}
    assert found["flows"]["west>east"] == {
        "from": "west",
        "to": "east",
        "fromRegion": "west-1",
        "toRegion": "east-1",
        "callsPerS": 20.5,
        "errorsPerS": 0.5,
        "p50Ms": None,
        "p99Ms": 9.0,
        "open": 2,
    }
    assert found["totals"]["callsPerS"] == 100.5
    assert found["leader"]["resolver"] == "resolver-1"
    assert found["store"]["reachable"] is True
    gateways = (await world.page.get("/api/gateways")).json["gateways"]
    assert [(it["name"], it["configVersion"]) for it in gateways] == [
        ("east-gw-1", None),
        ("west-gw-1", 7),
    ]


async def test_a_service_says_what_was_asked_what_holds_and_why(world: World) -> None:
    await world.published.export("east", "east-1", ["users"], ready=0)

    def moved(found: Any) -> bool:
        return found["states"]["differs"] == 1 and found["states"]["notready"] == 1

    listed = await world.page.until("/api/services?from=west-1&state=differs", moved)
    (users,) = listed["services"]
    east, west = users["clusters"]
    assert (east["askedBp"], east["inForceBp"]) == (2000, 0)
    assert east["reason"]["code"] == "NoReadyEndpoints"
    assert (west["askedBp"], west["inForceBp"]) == (8000, 10_000)
    detail = (await world.page.get("/api/services/app/users-global")).json
    assert detail["service"] == "app/users"
    assert detail["imports"] == ["users-global"]
    assert [source["region"] for source in detail["sources"]] == ["east-1", "west-1"]
    assert detail["sources"][1]["weightsOrigin"].startswith("MultiClusterService app/users-global")
    missing = await world.page.get("/api/services/app/nobody")
    assert missing.status == 404
    assert "no service or import is named app/nobody" in missing.error


async def test_exports_in_conflict_say_whose_word_rules(world: World) -> None:
    await world.published.export("east", "east-1", ["orders"], port=7070)
    found = await world.page.until(
        "/api/exports?state=conflict", lambda it: [e["service"] for e in it["exports"]]
    )
    assert {(it["cluster"], it["precedence"]) for it in found["exports"]} == {
        ("west", 1),
        ("east", 2),
    }
    assert found["exports"][0]["conflict"]["rulingCluster"] == "west"
    assert found["exports"][0]["conflict"]["fields"] == ["ports"]


async def test_a_drain_is_tried_started_and_stopped(world: World) -> None:
    asked = {"target": "east-1", "over": "0s", "grace": "0s"}
    tried = await world.page.send("POST", "/api/drains/preview", asked)
    assert tried.json["admitted"] is True
    assert {it["service"] for it in tried.json["impacts"]} == {"app/users", "app/orders"}
    assert (await world.page.get("/api/drains")).json["drains"] == []

    slip = await world.page.send("POST", "/api/drains", asked | {"confirm": "east"})
    assert slip.status == 400
    assert 'type the name of what is to be drained ("east-1")' in slip.error
    started = await world.page.send("POST", "/api/drains", asked | {"confirm": "east-1"})
    assert started.status == 201, started.json
    drained = await world.page.until(
        "/api/overview",
        lambda it: it["drains"].get("east-1", {}).get("progress") == "Drained",
    )
    assert drained["drains"]["east-1"]["requestedBy"] == "loopback (console)"
    services = (await world.page.get("/api/services?from=west-1&q=users")).json["services"]
    assert services[0]["clusters"][0]["inForceBp"] == 0

    refused = await world.page.send(
        "POST", "/api/drains", {"target": "west-1", "confirm": "west-1"}
    )
    assert refused.status == 409
    assert "would leave no healthy cluster" in refused.error
    assert refused.json["error"]["impacts"]
    assert (await world.page.send("DELETE", "/api/drains/east-1")).status == 200
    await world.page.until("/api/overview", lambda it: it["drains"] == {})
    again = await world.page.send("DELETE", "/api/drains/east-1")
    assert again.status == 404
    assert "east-1 is not drained" in again.error


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"target": "nowhere"}, 404, "known names: east, east-1, west, west-1"),
        ({"target": "east-1", "over": "soon"}, 400, "soon"),
        ({"target": "east-1", "service": "users"}, 400, "write NAMESPACE/NAME"),
        ({"target": 7}, 400, "target: Input should be a valid string"),
        ({"target": "east-1", "more": 1}, 400, "more: Extra inputs are not permitted"),
        ([], 400, "body: "),
    ],
)
async def test_a_drain_that_makes_no_sense_is_refused(
    world: World, body: Any, status: int, says: str
) -> None:
    answer = await world.page.send("POST", "/api/drains/preview", body)
    assert (answer.status, says in answer.error) == (status, True), answer.json


class Events:
    """Reads a stream of events."""

    def __init__(self, response: Any) -> None:
        self._response = response

    async def next(self) -> tuple[str, str, Any]:
        """Name, id and data of the next event."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(15):
            while True:
                line = (await self._response.content.readline()).decode().rstrip("\n")
                if not line and "event" in fields:
                    return fields["event"], fields.get("id", ""), json.loads(fields["data"])
                assert line or self._response.content.at_eof() is False, "the stream has ended"
                name, _, value = line.partition(": ")
                fields[name] = value

    async def until(self, name: str) -> tuple[str, Any]:
        """Id and data of the next event called ``name``."""
        while True:
            found, number, data = await self.next()
            if found == name:
                return number, data


def merged(document: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """RFC 7386, as a page does it."""
    result = dict(document)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            old = result.get(key)
            result[key] = merged(old if isinstance(old, dict) else {}, value)
        else:
            result[key] = value
    return result


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(entry) for key, entry in value.items() if entry is not None}
    return value


async def test_events_bring_every_page_to_the_document(world: World) -> None:
    async with world.page.session.get(f"{world.page.base}/api/events") as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        events = Events(response)
        number, document = await events.until("snapshot")
        await world.published.join("north", "north-1")
        while "north" not in document["clusters"]:
            number, patch = await events.until("patch")
            document = merged(document, patch)
        assert "west" not in patch.get("clusters", {}), "a patch names only what changed"
        await events.until("beat")
    overview = (await world.page.get("/api/overview")).json
    assert without_nulls(document) == without_nulls(overview)

    await world.published.leave("north")
    resumed = {"Last-Event-ID": number}
    async with world.page.session.get(f"{world.page.base}/api/events", headers=resumed) as response:
        events = Events(response)
        name, _, patch = await events.next()
        assert name == "patch", "who comes back soon gets the difference"
        document = merged(document, patch)
        while not document["clusters"]["north"]["stale"]:
            document = merged(document, (await events.until("patch"))[1])
    unknown = {"Last-Event-ID": "another-7"}
    async with world.page.session.get(f"{world.page.base}/api/events", headers=unknown) as response:
        assert (await Events(response).next())[0] == "snapshot"


async def test_events_come_at_most_twice_a_second(etcd_server: EtcdServer) -> None:
    keys = Keys(f"/console-{next(_numbers)}/")
    store = EtcdStore(EtcdSettings(endpoints=(etcd_server.endpoint,)))
    published = Published(store, keys)
    used = settings(limits=Limits())
    async with (
        running_console(etcd_server.endpoint, keys.prefix, used) as base,
        page(base) as opened,
        opened.session.get(f"{base}/api/events") as response,
    ):
        events = Events(response)
        await events.until("snapshot")
        times = []
        for number in range(200):
            await published.join(f"c{number}", "r")
        document: dict[str, Any] = {}
        while len(document.get("clusters", {})) < 200:
            document = merged(document, (await events.until("patch"))[1])
            times.append(time.monotonic())
    assert all(later - earlier > 0.4 for earlier, later in itertools.pairwise(times))
    await store.close()


async def test_pages_beyond_the_bound_are_refused(etcd_server: EtcdServer) -> None:
    used = settings(limits=Limits(clients=2, tick_s=0.1))
    async with (
        running_console(etcd_server.endpoint, f"/console-{next(_numbers)}/", used) as base,
        page(base) as opened,
        opened.session.get(f"{base}/api/events") as first,
        opened.session.get(f"{base}/api/events") as second,
    ):
        await Events(first).until("snapshot")
        await Events(second).until("snapshot")
        third = await opened.get("/api/events")
        assert (third.status, third.headers["Retry-After"]) == (503, "10")
        assert "2 pages follow this console already" in third.error
        second.close()
        # Who goes makes room: at the latest the next beat finds that he has gone.
        await eventually(lambda: _status(opened), lambda status: status == 200)


async def _status(opened: Page) -> int:
    async with opened.session.get(f"{opened.base}/api/events") as response:
        return response.status


async def test_a_page_that_reads_too_slowly_is_told_to_reload() -> None:
    live = Live(Latest(), Limits(queue=2))
    stream = live.join("")
    assert stream is not None
    for number in range(5):
        stream.put(Event("patch", "{}", str(number)))
    event = await stream.next()
    assert (event.name, event.last) == ("reload", True)
    assert "too slowly" in event.data


async def test_what_was_known_is_served_while_etcd_is_away() -> None:
    keys = Keys("/away/")
    with running_etcd() as etcd:
        store = EtcdStore(EtcdSettings(endpoints=(etcd.endpoint,)))
        published = Published(store, keys)
        await published.join("west", "west-1")
        await published.export("west", "west-1", ["users"])
        await store.close()
        async with running_console(etcd.endpoint, keys.prefix) as base, page(base) as opened:
            before = await opened.until("/api/overview", lambda it: it["totals"]["services"])
            await opened.open()
            etcd.kill()
            gone = await opened.until("/api/overview", lambda it: not it["store"]["reachable"])
            assert "is away" in gone["store"]["reason"]
            assert gone["at"] == before["at"], "the age of what is shown is that of what was read"
            assert (await opened.get("/api/services")).json["total"] == 1
            refused = await opened.send(
                "POST", "/api/drains", {"target": "west-1", "confirm": "west-1"}
            )
            assert (refused.status, refused.json["error"]["code"]) == (503, "store_away")
            etcd.start()
            await opened.until("/api/overview", lambda it: it["store"]["reachable"])


async def test_ten_thousand_services_are_served_page_by_page(etcd_server: EtcdServer) -> None:
    keys = Keys(f"/console-{next(_numbers)}/")
    store = EtcdStore(EtcdSettings(endpoints=(etcd_server.endpoint,)))
    published = Published(store, keys)
    names = [f"service-{number:05}" for number in range(10_000)]
    for name in ("west", "east"):
        await published.join(name, f"{name}-1")
        await published.export(name, f"{name}-1", names)
    async with running_console(etcd_server.endpoint, keys.prefix) as base, page(base) as opened:
        await opened.until("/api/overview", lambda it: it["totals"]["services"] == 10_000)
        started = time.monotonic()
        for path in (
            "/api/services?page=200&per=50",
            "/api/services?q=service-09999",
            "/api/services?state=unresolved&sort=calls&per=200",
            "/api/exports?page=100",
            "/api/overview",
        ):
            answer = await opened.get(path)
            assert answer.status == 200
            size = len(json.dumps(answer.json))
            assert size < 200_000, (path, size)
        took_s = time.monotonic() - started
        last = (await opened.get("/api/services?page=200&per=50")).json
        assert (last["matched"], last["services"][-1]["name"]) == (10_000, "service-09999")
        assert (await opened.get("/api/services?per=201")).status == 400
    await store.close()
    assert took_s < 5, "five pages of a large federation"


async def test_nobody_writes_without_the_right(etcd_server: EtcdServer) -> None:
    keys = Keys(f"/console-{next(_numbers)}/")
    used = settings(access=Access())
    async with running_console(etcd_server.endpoint, keys.prefix, used) as base, page(base) as it:
        about = (await it.open()).json
        assert about["rights"] == {"read": True, "write": False}
        answer = await it.send("POST", "/api/drains", {"target": "a", "confirm": "a"})
        assert answer.status == 403
        assert "started without --write" in answer.error


ROUTED = """
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: istio}
spec: {controllerName: federation.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: grpc, namespace: app}
spec:
  gatewayClassName: istio
  listeners: [{name: grpc, port: 8080, protocol: HTTP, hostname: "*.example.com"}]
---
apiVersion: v1
kind: Service
metadata: {name: users, namespace: app}
spec: {ports: [{name: grpc, port: 9090}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: users-1, namespace: app, labels: {kubernetes.io/service-name: users}}
addressType: IPv4
endpoints: [{addresses: [10.0.0.7]}]
ports: [{name: grpc, port: 9090}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: users, namespace: app}
spec:
  parentRefs: [{name: grpc}]
  hostnames: [grpc.example.com]
  rules:
  - matches: [{method: {service: app.Users, method: Get}, headers: [{name: x-tenant, value: a}]}]
    backendRefs: [{name: users, port: 9090}]
"""


async def test_the_tester_says_which_rule_takes_a_call_and_why_not_the_others(
    world: World,
) -> None:
    objects = UniversalObjects(world.store, world.keys, ClusterId("west"), SystemClock())
    for document in decode_all(parse_documents(ROUTED, origin="test")).objects:
        await objects.apply(document)
    await world.page.until("/api/routes?cluster=west", lambda it: it["total"] == 1)
    asked = {
        "cluster": "west",
        "host": "grpc.example.com",
        "method": "app.Users/Get",
        "headers": [["X-Tenant", "a"]],
    }
    taken = (await world.page.send("POST", "/api/routes/test", asked)).json
    assert taken["result"] == "forward", taken
    assert taken["rule"] == "app/users/rule-0" or "users" in taken["rule"]
    (destination,) = taken["destinations"]
    assert (destination["service"], destination["sharePpm"]) == ("app/users", 1_000_000)
    assert destination["tiers"][0]["clusters"][0]["endpoints"] == ["10.0.0.7:9090"]

    other = (
        await world.page.send("POST", "/api/routes/test", asked | {"headers": [["x-tenant", "b"]]})
    ).json
    assert other["result"] == "none"
    assert [it["why"] for it in other["considered"]] == ['header x-tenant is "b", it wants "a"']
    nowhere = (
        await world.page.send("POST", "/api/routes/test", asked | {"host": "other.org"})
    ).json
    assert nowhere["host"]["matched"] is None
    assert "UNIMPLEMENTED" in nowhere["sentence"]
    bare = await world.page.send("POST", "/api/routes/test", asked | {"cluster": "east"})
    assert bare.status == 404
    assert "start the console with --context east=CONTEXT" in bare.error


async def test_the_timeline_tells_who_decided_what_in_order(
    world: World, etcd_server: EtcdServer
) -> None:
    asked = {"target": "east-1", "over": "1s", "grace": "0s", "confirm": "east-1"}
    await world.page.send("POST", "/api/drains", asked)
    await world.page.until(
        "/api/overview", lambda it: it["drains"].get("east-1", {}).get("progress") == "Drained"
    )
    await world.page.send("DELETE", "/api/drains/east-1")
    await world.page.until("/api/overview", lambda it: it["drains"] == {})
    await world.published.leave("east")

    def told(found: Any) -> bool:
        return any(it["what"] == "went silent" for it in found["entries"])

    found = await world.page.until("/api/timeline", told)
    entries = list(reversed(found["entries"]))
    assert [it["revision"] for it in entries] == sorted(it["revision"] for it in entries)
    story = [it["what"] for it in entries if it["object"] == "drain east-1"]
    assert story[:1] == ["asked for"]
    assert [it for it in story if it in ("asked for", "Drained", "taken back", "over")] == [
        "asked for",
        "Drained",
        "taken back",
        "over",
    ]
    by = {(it["object"], it["what"]): it for it in entries}
    start = by["drain east-1", "asked for"]
    assert (start["actor"], start["timeFrom"]) == ("loopback (console)", "seen")
    moved = [it for it in entries if it["service"] == "app/users" and it["reason"] == "Draining"]
    assert moved
    assert moved[0]["actor"] == "resolver-1"
    assert {"what": "east from west-1", "before": "20 %", "after": "0 %"} in [
        change for it in entries for change in it["changes"]
    ] or moved[0]["changes"]
    assert by["cluster east", "went silent"]["severity"] == "warning"

    only = await world.page.get("/api/timeline?kind=drain&limit=2")
    assert [it["kind"] for it in only.json["entries"]] == ["drain", "drain"]
    rest = await world.page.get(f"/api/timeline?kind=drain&before={only.json['next']}")
    assert rest.json["entries"]
    assert not {it["id"] for it in rest.json["entries"]} & {it["id"] for it in only.json["entries"]}
    # Who comes later reads the same from etcd's history, with times that are not made up.
    async with (
        running_console(etcd_server.endpoint, world.keys.prefix) as base,
        page(base) as later,
    ):
        again = await later.until("/api/timeline", told)
        asked_for = [it for it in again["entries"] if it["what"] == "asked for"]
        assert [it["id"] for it in asked_for] == [start["id"]]
        assert asked_for[0]["timeFrom"] in ("before", "estimated")


async def test_the_timeline_is_bounded(etcd_server: EtcdServer) -> None:
    keys = Keys(f"/console-{next(_numbers)}/")
    store = EtcdStore(EtcdSettings(endpoints=(etcd_server.endpoint,)))
    published = Published(store, keys)
    used = settings(timeline_entries=20)
    async with running_console(etcd_server.endpoint, keys.prefix, used) as base, page(base) as it:
        for number in range(60):
            await published.join(f"c{number}", "r")
        found = await it.until(
            "/api/timeline?limit=500",
            lambda it: any(entry["cluster"] == "c59" for entry in it["entries"]),
        )
        assert len(found["entries"]) == 20
        assert found["complete"] is False
        unknown = await it.get("/api/timeline?limit=500&before=999999999.0")
        assert unknown.json["entries"] == found["entries"], "a place, not an entry that is kept"
        assert (await it.get("/api/timeline?before=x")).status == 400
    await store.close()


async def test_the_timeline_tells_nothing_twice_after_a_failure(etcd_server: EtcdServer) -> None:
    keys = Keys(f"/console-{next(_numbers)}/")
    store = EtcdStore(EtcdSettings(endpoints=(etcd_server.endpoint,)))
    published = Published(store, keys)
    timeline = Timeline(store, keys, SystemClock(), revisions=1_000, entries=100)

    async def told() -> list[tuple[str, int]]:
        return [(it["cluster"], it["count"]) for it in timeline.page(Wanted())["entries"]]

    async def follow(cluster: str) -> list[tuple[str, int]]:
        await published.join(cluster, "r")
        following = asyncio.create_task(timeline.run())
        try:
            found = await eventually(told, lambda it: any(name == cluster for name, _ in it))
        finally:
            await cancel_and_wait(following)
        return [it for it in found if it[0] == "a"]

    assert await follow("a") == await follow("b")
    await store.close()
