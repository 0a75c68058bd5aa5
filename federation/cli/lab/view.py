"""The lab's live view in the terminal.

Decides: how a frame looks.
Leaves to others: where its figures come from (``frame``).
Invariants: a frame is drawn from one ``Frame`` value; what could not be read is said, not left out.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from federation.cli.lab.client import ClientFigures
from federation.cli.lab.frame import Collector, Frame, GatewayFigures, ShareFigures
from federation.cli.lab.plan import LabPlan

REFRESH_S = 1.0


def show(plan: LabPlan) -> None:
    """Draw the lab every second until Ctrl-C."""
    console = Console()
    collector = Collector(plan)
    with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        try:
            while True:
                live.update(render(collector.collect()), refresh=True)
                time.sleep(REFRESH_S)
        except KeyboardInterrupt:
            return


def draw(plan: LabPlan, *, path: Path, width: int = 132) -> None:
    """Write one frame as an SVG picture to ``path``; rates are over one second."""
    collector = Collector(plan)
    collector.collect()
    time.sleep(REFRESH_S)
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(render(collector.collect()))
    console.save_svg(str(path), title="fedctl lab view")


def render(frame: Frame) -> RenderableType:
    """One frame."""
    parts: list[RenderableType] = [_head(frame), _clients(frame), _shares(frame.shares)]
    if frame.drains:
        parts.append(_lines("drains", frame.drains, style="yellow"))
    parts.append(_gateways(frame.gateways))
    if frame.troubles:
        parts.append(_lines("attention", frame.troubles, style="red"))
    parts.append(
        Text(
            "try: fedctl apply -f clusters/examples/multi-cluster.yaml · fedctl drain us-east-1 · "
            "fedctl lab kill us-east-1 · Ctrl-C ends the view",
            style="dim",
        )
    )
    return Group(*(Padding(part, (0, 0, 1, 0)) for part in parts))


def _head(frame: Frame) -> Text:
    text = Text.assemble(("federation lab", "bold"), "  ")
    for cluster, state in frame.members:
        text.append(f"{cluster} ")
        text.append(state + "  ", style="green" if state == "live" else "yellow")
    text.append(f"leader {frame.leader}", style="" if frame.leader != "none" else "red")
    return text


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold cyan",
        header_style="dim",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=True)
    return table


def _clients(frame: Frame) -> Table:
    clusters = sorted({name for figures in frame.clients.values() for name in figures.by_cluster})
    table = _table(
        "calls a second, by the cluster that answered",
        *("client in", *clusters, "errors/s", "p50 ms", "p99 ms", "failed"),
    )
    for region, figures in sorted(frame.clients.items()):
        errors = sum(figures.errors.values()) / figures.window_s
        table.add_row(
            region,
            *(f"{figures.by_cluster.get(name, 0) / figures.window_s:.0f}" for name in clusters),
            Text(f"{errors:.0f}", style="red" if errors else ""),
            _ms(figures.p50_ms),
            _ms(figures.p99_ms),
            f"{figures.total_errors} of {figures.total_ok + figures.total_errors}",
        )
    for message in sorted(_messages(frame.clients.values())):
        table.caption = message
        table.caption_justify = "left"
    return table


def _messages(clients: Iterable[ClientFigures]) -> set[str]:
    return {
        f"{code}: {message}" for figures in clients for code, message in figures.messages.items()
    }


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _shares(shares: tuple[ShareFigures, ...]) -> Table:
    table = _table("weights", "service", "from", "to", "asked", "in force", "failover", "why")
    table.columns[-1].justify = "left"
    table.columns[-1].no_wrap = False
    for share in shares:
        moved = share.asked_bp != share.weight_bp
        table.add_row(
            share.service,
            share.source,
            share.cluster,
            f"{share.asked_bp / 100:.0f} %",
            Text(f"{share.weight_bp / 100:.0f} %", style="yellow" if moved else ""),
            share.failover or "-",
            share.reason,
        )
    if not shares:
        table.caption = "nothing is imported yet"
        table.caption_justify = "left"
    return table


def _gateways(gateways: tuple[GatewayFigures, ...]) -> Table:
    table = _table(
        "gateways",
        *("name", "configuration", "open calls", "tries/s", "retries", "ejections", "down"),
    )
    for gateway in gateways:
        table.add_row(
            gateway.name,
            Text(gateway.state, style="" if gateway.is_current else "yellow"),
            str(gateway.calls_open),
            f"{gateway.tries_per_s:.0f}",
            str(gateway.retries),
            str(gateway.ejections),
            ", ".join(gateway.down) or "-",
        )
    return table


def _lines(title: str, lines: tuple[str, ...], *, style: str) -> Panel:
    return Panel("\n".join(lines), title=title, title_align="left", border_style=style)
