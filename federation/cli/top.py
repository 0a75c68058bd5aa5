"""``fedctl top``: where calls go now.

Decides: options, layout, how often it is drawn, and what is said when figures are old.
Leaves to others: the figures (``cli.federation_traffic``), rows (``derive.traffic_rows``).
Invariants: what is not known is said, never shown as nothing; a terminal that goes away or Ctrl-C
ends it at once; without a terminal it prints one table and ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from federation.adapters.clock import SystemClock
from federation.aio import Latest, cancel_and_wait
from federation.cli.completion import complete_service
from federation.cli.context import CommandError, Context, current, run
from federation.cli.exit_codes import ExitCode
from federation.cli.explain import OutputForm, OutputOption
from federation.cli.federation_traffic import FederationTraffic, LiveTraffic, SeenReport
from federation.cli.federation_view import parse_service, read_view
from federation.cli.output import as_json
from federation.derive.resolve_asked import percent
from federation.derive.traffic_rows import RowOrder, TrafficRow, traffic_rows
from federation.model.base import ClusterId, ServiceName
from federation.model.view import FederationView
from federation.ports import PortError, Store
from federation.wire.etcd import ViewReader
from federation.wire.etcd_keys import Keys
from federation.wire.etcd_traffic import TrafficReader

app = typer.Typer()

DRAW_EVERY_S = 1.0
NONE = "-"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is shown, and in which order."""

    service: ServiceName | None = None
    order: RowOrder = RowOrder.SERVICE


@app.command("top", epilog="Example: fedctl top --service app/user-service --sort errors")
def top(
    ctx: typer.Context,
    service: Annotated[
        str | None,
        typer.Option(
            help="Only calls of this service (NAMESPACE/NAME).",
            show_default="all",
            autocompletion=complete_service,
        ),
    ] = None,
    sort: Annotated[RowOrder, typer.Option(help="What comes first.")] = RowOrder.SERVICE,
    once: Annotated[bool, typer.Option("--once", help="Print one table and end.")] = False,
    output: OutputOption = OutputForm.TABLE,
) -> None:
    """Show where calls go now: from which region to which, how many, how well, by which weights."""
    wanted = Wanted(parse_service(service) if service else None, sort)
    if output is OutputForm.JSON or once or not Console().is_terminal:
        run(_print(current(ctx), wanted, output))
    else:
        run(_watch(current(ctx), wanted))


async def _print(context: Context, wanted: Wanted, output: OutputForm) -> None:
    keys, clock = Keys(context.prefix), SystemClock()
    async with context.open_store() as store:
        view = (await read_view(store, keys)).view
        reading = TrafficReader(keys).read((await store.list(keys.traffic)).entries)
    # Read once there is nothing else to tell its age by than the agents' clocks and ours.
    now, unix_s = clock.monotonic(), clock.now()
    seen = {
        cluster: SeenReport(report, now - max(0.0, unix_s - report.at))
        for cluster, report in reading.reports.items()
    }
    known = LiveTraffic(seen, "", tuple(map(str, reading.problems)))
    rows = _rows(known, view, wanted)
    if wanted.service is not None and not rows and wanted.service not in _services(view):
        names = ", ".join(sorted(map(str, _services(view)))) or "none"
        raise CommandError(
            f"no service or import is named {wanted.service}; known services: {names}",
            ExitCode.NOT_FOUND,
        )
    if output is OutputForm.JSON:
        typer.echo(as_json(_document(known, rows, now)))
    else:
        Console(highlight=False).print(render(known, rows, now))


def _services(view: FederationView) -> set[ServiceName]:
    return {*view.exports, *view.resolved}


def _rows(known: LiveTraffic, view: FederationView, wanted: Wanted) -> tuple[TrafficRow, ...]:
    rows = traffic_rows(
        (seen.report for seen in known.clusters.values()),
        view,
        silent=(cluster for cluster, seen in known.clusters.items() if seen.stale),
        order=wanted.order,
    )
    name = None if wanted.service is None else str(wanted.service)
    return tuple(row for row in rows if name in (None, row.service))


def _document(known: LiveTraffic, rows: Iterable[TrafficRow], now: float) -> dict[str, Any]:
    return {
        "clusters": [
            {
                "cluster": cluster,
                "region": seen.report.region,
                "ageS": round(seen.age_s(now), 1),
                "silent": seen.stale,
                "truncated": seen.report.truncated,
                "gateways": [
                    gateway.model_dump(mode="json", by_alias=True)
                    for gateway in seen.report.gateways
                ],
            }
            for cluster, seen in known.clusters.items()
        ],
        "flows": [row.model_dump(mode="json", by_alias=True) for row in rows],
        "problems": list(known.problems),
    }


async def _watch(context: Context, wanted: Wanted) -> None:
    """Draw until Ctrl-C; an etcd that is away is said in the picture and waited for."""
    keys, clock = Keys(context.prefix), SystemClock()
    async with context.open_store() as store:
        await store.get(keys.traffic)  # one that is away from the start is an error, as everywhere
        traffic, views = FederationTraffic(store, keys, clock=clock), Latest[FederationView]()
        async with _running(traffic.run(), _follow(store, keys, views)):
            with Live(screen=True, auto_refresh=False) as live:
                while True:
                    known = traffic.latest.value or LiveTraffic()
                    rows = _rows(known, views.value or FederationView(revision=0), wanted)
                    live.update(render(known, rows, clock.monotonic(), live=True), refresh=True)
                    await asyncio.sleep(DRAW_EVERY_S)


async def _follow(store: Store, keys: Keys, views: Latest[FederationView]) -> None:
    """Keep ``views`` at the newest weights, for ever."""
    reader = ViewReader(keys)
    while True:
        try:
            async with aclosing(store.mirror(keys.state)) as listings:
                async for listing in listings:
                    views.set(reader.read(listing.revision, listing.entries).view)
        except PortError:
            await asyncio.sleep(DRAW_EVERY_S)  # ``FederationTraffic`` says why


@asynccontextmanager
async def _running(*work: Any) -> AsyncGenerator[None, None]:
    tasks = [asyncio.ensure_future(it) for it in work]
    try:
        yield
    finally:
        for task in tasks:
            await cancel_and_wait(task)


def render(
    known: LiveTraffic, rows: Iterable[TrafficRow], now: float, *, live: bool = False
) -> RenderableType:
    """The table and what has to be said about it, at ``now`` of the reader's monotonic clock."""
    shown = list(rows)
    parts: list[RenderableType] = [_head(known, shown, live=live)]
    if shown:
        parts.append(_table(shown))
    elif known.clusters:
        parts.append(Text("No calls are carried now."))
    else:
        parts.append(Text("No cluster reports its traffic yet; do agents and gateways run?"))
    parts += [Text(line, style="yellow") for line in _notes(known.clusters, now)]
    parts += [Text(line, style="yellow") for line in known.problems]
    return Group(*parts)


def _head(known: LiveTraffic, rows: list[TrafficRow], *, live: bool) -> Text:
    calls = sum(row.calls_per_s for row in rows)
    errors = sum(row.errors_per_s for row in rows)
    opened = sum(row.open for row in rows)
    text = Text.assemble(
        ("federation traffic", "bold"),
        f"   {calls:.1f} calls/s   ",
        (f"{errors:.1f} errors/s", "bold red" if errors >= 0.05 else ""),
        f"   {opened} open",
    )
    if live:
        text.append("   Ctrl-C ends", style="dim")
    if known.away:
        text.append(
            f"\netcd is away: {known.away}; traffic goes on as it is, these figures are old",
            style="red",
        )
    return text


def _table(rows: Iterable[TrafficRow]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("SERVICE", "FROM", "TO"):
        table.add_column(name, overflow="fold")
    for name in ("CALLS/S", "ERRORS", "P50 MS", "P99 MS", "OPEN", "TIER", "ASKED", "IN FORCE"):
        table.add_column(name, justify="right")
    for row in rows:
        moved = row.weight_bp != row.weight_asked_bp
        table.add_row(
            row.service or "(others)",
            _place(row.from_region, row.from_cluster),
            _place(row.to_region, row.to_cluster) or Text("nowhere: no endpoint", style="red"),
            f"{row.calls_per_s:.1f}",
            Text(_part(row.error_ratio), style="bold red" if row.errors_per_s else ""),
            _ms(row.p50_ms),
            _ms(row.p99_ms),
            str(row.open),
            str(row.tier) if row.imported else NONE,
            NONE if row.weight_asked_bp is None else percent(row.weight_asked_bp),
            Text(
                NONE if row.weight_bp is None else percent(row.weight_bp),
                style="bold yellow" if moved else "",
            ),
            style="dim" if row.silent else "",
        )
    return table


def _place(region: str, cluster: str) -> str:
    """Region and cluster, once where both have one name."""
    return cluster if region in ("", cluster) else f"{region}/{cluster}"


def _part(ratio: float) -> str:
    return NONE if not ratio else f"{ratio * 100:.2g} %" if ratio < 0.1 else f"{ratio * 100:.0f} %"


def _ms(value: float | None) -> str:
    return NONE if value is None else f"≤ {value:g}"


def _notes(clusters: Mapping[ClusterId, SeenReport], now: float) -> list[str]:
    notes = []
    for cluster, seen in clusters.items():
        if seen.gone_at is not None:
            notes.append(
                f"{cluster}: its agent has been silent for {now - seen.gone_at:.0f} s; the figures "
                "are its last, its traffic goes on"
            )
        elif not seen.report.gateways:
            notes.append(f"{cluster}: no gateway reports to its agent")
        if seen.report.truncated:
            notes.append(f"{cluster}: {seen.report.truncated} quieter flows are told together")
    return notes
