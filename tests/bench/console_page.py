"""The console's page with 10,000 services: how soon it is painted, what an update costs its thread.

A real etcd holds the state of a federation, written as agents and a resolver would write it; a real
console reads it; Debian's chromium shows the page. The method stands in ``README.md``.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

from federation.adapters.etcd import EtcdSettings, EtcdStore
from federation.derive.resolve import resolve
from federation.model.base import ClusterId, Region, ServiceName
from federation.model.facts import (
    ClusterGateways,
    ClusterWeight,
    ExportFact,
    Heartbeat,
    Member,
    PeerGateway,
    ServicePolicyFact,
    ServicePort,
)
from federation.model.resolved import ResolvedService
from federation.model.traffic_report import Flow, TrafficReport
from federation.model.view import FederationView
from federation.ports import Put
from federation.wire.etcd import to_bytes
from federation.wire.etcd_keys import Keys
from federation.wire.etcd_traffic import traffic_to_bytes
from tests.testkit.browser import running_browser, visiting
from tests.testkit.etcd import running_etcd
from tests.testkit.ports import free_port
from tests.testkit.processes import running

SERVICES = 10_000
CLUSTERS = tuple(ClusterId(name) for name in ("eu-central-1", "us-east-1", "us-west-1"))
BATCH = 100
LOADS, UPDATES = 7, 15
CHANGED = 50
"""Services that one update changes: a whole page of the list."""
FLOWS = 40
"""Services whose traffic each report tells one by one."""
KEYS = Keys()
PATIENCE_MS = 60_000


def services() -> list[ServiceName]:
    return [ServiceName(namespace="app", name=f"service-{n:05}") for n in range(SERVICES)]


def view(weights: tuple[int, ...], names: list[ServiceName]) -> FederationView:
    """A federation in which every cluster exports ``names``, with the same weights for each."""
    return FederationView(
        revision=1,
        members={c: Member(cluster=c, region=Region(c), instance=c) for c in CLUSTERS},
        heartbeats={
            c: Heartbeat(
                cluster=c, instance=c, seen_revision=1, version="0.1.0", gateways_connected=2
            )
            for c in CLUSTERS
        },
        gateways={
            c: ClusterGateways(
                cluster=c,
                region=Region(c),
                gateways=(PeerGateway(name=f"gateway-{c}", address="127.0.0.1:1"),),
            )
            for c in CLUSTERS
        },
        exports={name: {c: export(c, name) for c in CLUSTERS} for name in names},
        policies={name: {CLUSTERS[0]: policy(name, weights)} for name in names},
    )


def export(cluster: ClusterId, service: ServiceName) -> ExportFact:
    return ExportFact(
        cluster=cluster,
        region=Region(cluster),
        service=service,
        ports=(ServicePort(name="grpc", port=9090),),
        ready=3,
        total=3,
        capacity=3,
    )


def policy(service: ServiceName, weights: tuple[int, ...]) -> ServicePolicyFact:
    return ServicePolicyFact(
        cluster=CLUSTERS[0],
        service=service,
        import_name=service.name,
        weights=tuple(
            ClusterWeight(target=cluster, weight=weight)
            for cluster, weight in zip(CLUSTERS, weights, strict=True)
        ),
        weights_origin=f"MultiClusterService app/{service.name}",
    )


def resolved(found: FederationView) -> Mapping[ServiceName, ResolvedService]:
    return resolve(found, drains={}, previous={}, now_ms=0).services


def everything(found: FederationView) -> list[Put]:
    """What agents and the resolver keep in the store for ``found``."""
    writes = [Put(KEYS.member(c), to_bytes(value)) for c, value in found.members.items()]
    writes += [Put(KEYS.heartbeat(c), to_bytes(value)) for c, value in found.heartbeats.items()]
    writes += [Put(KEYS.gateways(c), to_bytes(value)) for c, value in found.gateways.items()]
    for service, exports in found.exports.items():
        writes += [Put(KEYS.export(c, service), to_bytes(fact)) for c, fact in exports.items()]
        asked = found.policies[service][CLUSTERS[0]]
        writes.append(Put(KEYS.policy(CLUSTERS[0], service, asked.import_name), to_bytes(asked)))
    return writes + resolutions(found) + traffic(1)


def resolutions(found: FederationView) -> list[Put]:
    return [Put(KEYS.resolved(name), to_bytes(value)) for name, value in resolved(found).items()]


def traffic(turn: int) -> list[Put]:
    """Every cluster's report; each figure in it is another in each turn."""
    return [Put(KEYS.traffic_of(c), traffic_to_bytes(report(c, turn))) for c in CLUSTERS]


def report(cluster: ClusterId, turn: int) -> TrafficReport:
    flows = tuple(
        Flow(
            service=str(service),
            to_cluster=target,
            to_region=Region(target),
            calls_per_s=100.0 + turn + n,
            p50_ms=1.5,
            p99_ms=5.0 + turn,
        )
        for n, service in enumerate(services()[:FLOWS])
        for target in CLUSTERS
    )
    return TrafficReport(at=float(turn), cluster=cluster, region=Region(cluster), flows=flows)


async def write(endpoint: str, writes: list[Put]) -> None:
    store = EtcdStore(EtcdSettings(endpoints=(endpoint,)))
    try:
        for start in range(0, len(writes), BATCH):
            await store.commit(writes[start : start + BATCH])
    finally:
        await store.close()


@dataclass
class Rig:
    """What is measured, and where to change it."""

    etcd: str
    console: str
    browser: Browser
    threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    def put(self, writes: list[Put]) -> None:
        """Write and wait for it. Playwright's loop is this thread's, so it is done in another."""
        self.apart(write(self.etcd, writes))

    def apart(self, work: Coroutine[Any, Any, None]) -> None:
        self.threads.submit(asyncio.run, work).result()


@contextmanager
def rig() -> Iterator[Rig]:
    port = free_port()
    with tempfile.TemporaryDirectory() as directory, running_etcd() as etcd:
        asyncio.run(write(etcd.endpoint, everything(view((60, 30, 10), services()))))
        command = (
            *(sys.executable, "-m", "federation.cli", "--etcd", etcd.endpoint),
            *("console", "--listen", f"127.0.0.1:{port}"),
        )
        log = Path(directory) / "console.log"
        with running(command, [port], log), running_browser() as browser:
            yield Rig(etcd.endpoint, f"http://127.0.0.1:{port}", browser)


def first_paint(found: Rig, path: str, shown: str) -> tuple[float, float]:
    """First contentful paint, and when ``shown`` stood there; ms after the navigation began."""
    with visiting(found.browser, found.console) as visit:
        visit.page.set_default_timeout(PATIENCE_MS)
        visit.page.goto(found.console + path, wait_until="commit")
        visit.page.get_by_text(shown, exact=True).first.wait_for()
        there = float(visit.page.evaluate("performance.now()"))
        paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        return float(visit.page.evaluate(paint)), there


class MainThread:
    """The time that a page's main thread has worked, as chromium counts it."""

    def __init__(self, page: Page) -> None:
        self._session = page.context.new_cdp_session(page)
        self._session.send("Performance.enable")

    def worked_ms(self) -> float:
        metrics = self._session.send("Performance.getMetrics")["metrics"]
        return next(1000 * entry["value"] for entry in metrics if entry["name"] == "TaskDuration")


def updates(
    found: Rig,
    path: str,
    turn: Callable[[int], tuple[list[Put], Callable[[Page], None]]],
    *,
    changes: int,
) -> list[float]:
    """Main-thread ms of each update: from before it is written until the page shows it."""
    samples = []
    with visiting(found.browser, found.console) as visit:
        page = visit.open(path)
        thread = MainThread(page)
        for number in range(changes):
            writes, is_shown = turn(number)
            before = thread.worked_ms()
            found.put(writes)
            is_shown(page)
            samples.append(thread.worked_ms() - before)
    return samples


def until_cell(page: Page, label: str, index: int, text: str) -> None:
    """Wait for a cell of a table. Looked for every 100 ms by a selector that costs next to nothing:
    a search by role and name walks the whole page, and would be in the figures."""
    page.wait_for_function(
        "([label, index, text]) =>"
        " document.querySelectorAll(`td[data-label='${label}']`)[index]"
        "?.textContent.includes(text)",
        arg=[label, index, text],
        polling=100,
        timeout=PATIENCE_MS,
    )


def weights_turn(number: int) -> tuple[list[Put], Callable[[Page], None]]:
    """Other weights for every service of the first page of the list."""
    first = 20 + number
    changed = resolutions(view((first, 90 - first, 10), services()[:CHANGED]))

    def is_shown(page: Page) -> None:
        until_cell(page, "Asked", CHANGED - 1, f"{first} %")

    return changed, is_shown


def traffic_turn(number: int) -> tuple[list[Put], Callable[[Page], None]]:
    """Other figures for every flow of the map."""
    p99 = 5.0 + 10 + number

    def is_shown(page: Page) -> None:
        until_cell(page, "p99", 0, f"{p99:.1f} ms")

    return traffic(10 + number), is_shown


@dataclass(frozen=True, slots=True)
class Row:
    """Milliseconds of one thing, again and again."""

    what: str
    samples_ms: list[float]


def measure(*, loads: int = LOADS, changes: int = UPDATES) -> list[Row]:
    """Loads of two pages, each in a context of its own, then changes to each."""
    rows = []
    with rig() as found:
        for path, shown in (("/", "calls a second"), ("/services", "app/service-00049")):
            samples = [first_paint(found, path, shown) for _ in range(loads)]
            rows.append(Row(f"`{path}`: first contentful paint", [paint for paint, _ in samples]))
            rows.append(Row(f"`{path}`: live state shown", [there for _, there in samples]))
        for path, what, turn in (
            ("/", "all flows change", traffic_turn),
            ("/services", "a page's weights change", weights_turn),
        ):
            samples_ms = updates(found, path, turn, changes=changes)
            rows.append(Row(f"`{path}`: main thread, {what}", samples_ms))
    return rows


def table(rows: list[Row]) -> str:
    """Medians and the longest as Markdown."""
    lines = ["| ms | median | longest |", "| --- | ---: | ---: |"]
    for row in rows:
        middle = statistics.median(row.samples_ms)
        lines.append(f"| {row.what} | {middle:.0f} | {max(row.samples_ms):.0f} |")
    return "\n".join(lines)
