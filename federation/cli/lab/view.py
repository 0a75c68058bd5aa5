"""The lab's live view in the terminal.

Decides: how a frame looks, and which command it offers next.
Leaves to others: where its figures come from (``frame``).
Invariants: a frame is drawn from one ``Frame`` value; what could not be read is said, not left out;
a cluster has one colour everywhere.
"""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from federation.cli.lab.client import ClientFigures
from federation.cli.lab.frame import SILENT, Collector, Frame, GatewayFigures, ShareFigures
from federation.cli.lab.plan import LabPlan

REFRESH_S = 1.0
BAR_WIDTH_MIN, BAR_WIDTH_MAX = 8, 40
BESIDE_BAR = 76
"""What the other columns of the calls' table take with two clusters."""
COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_red", "white", "bright_black")
EXAMPLE = "clusters/examples/multi-cluster.yaml"


def show(plan: LabPlan, *, leaving: str) -> None:
    """Draw the lab every second until Ctrl-C, which does what ``leaving`` says."""
    console = Console()
    collector = Collector(plan)
    with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        try:
            while True:
                frame = render(collector.collect(), width=console.width, leaving=leaving)
                live.update(frame, refresh=True)
                time.sleep(REFRESH_S)
        except KeyboardInterrupt:
            return


def draw(plan: LabPlan, *, path: Path, width: int = 124) -> None:
    """Write one frame as an SVG picture to ``path``; rates are over one second."""
    collector = Collector(plan)
    collector.collect()
    time.sleep(REFRESH_S)
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(render(collector.collect(), width=width))
    console.save_svg(str(path), title="fedctl lab view")


def render(frame: Frame, *, width: int, leaving: str = "") -> RenderableType:
    """One frame for a terminal of ``width``; ``leaving`` says what Ctrl-C does."""
    colours = _colours(frame)
    bar_width = max(min(width - BESIDE_BAR, BAR_WIDTH_MAX), BAR_WIDTH_MIN)
    parts: list[RenderableType] = [_head(frame, colours), _clients(frame, colours, bar_width)]
    if errors := _errors(frame):
        parts.append(errors)
    parts.append(_shares(frame, colours))
    if attention := _attention(frame):
        parts.append(attention)
    parts += [_gateways(frame.gateways), _next(frame, leaving)]
    return Group(*(Padding(part, (0, 0, 1, 0)) for part in parts))


def _colours(frame: Frame) -> dict[str, str]:
    names = dict.fromkeys((*frame.regions, *(name for name, _ in frame.members)))
    return {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}


def _head(frame: Frame, colours: Mapping[str, str]) -> Text:
    text = Text.assemble(("federation lab", "bold"), "   ")
    for cluster, state in sorted(frame.members, key=lambda member: list(colours).index(member[0])):
        text.append("■ ", style=colours[cluster])
        text.append(f"{cluster} ")
        text.append(state + "   ", style="green" if state == "live" else "bold yellow")
    text.append(frame.leader, style="" if frame.leader.endswith(")") else "red")
    return text


def _table(title: str, *columns: str, left: Sequence[str] = ()) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    for number, column in enumerate(columns):
        is_left = number == 0 or column in left
        table.add_column(column, justify="left" if is_left else "right", overflow="fold")
    return table


def _clients(frame: Frame, colours: Mapping[str, str], bar_width: int) -> RenderableType:
    counts = {region: _answers(frame, figures) for region, figures in frame.clients.items()}
    places = list(colours)
    names = {name for found in counts.values() for name in found}
    columns = sorted(names, key=lambda name: (_place(name, places), name))
    table = _table(
        "calls a second, by who answered",
        *("from", "", *columns, "errors", "p50 ms", "p99 ms", "failed so far"),
        left=("",),
    )
    for region in frame.regions:
        if (figures := frame.clients.get(region)) is None:
            table.add_row(region, Text("no client runs here now", style="dim"))
        else:
            bar = _bar(figures, colours, bar_width)
            table.add_row(region, bar, *_figures(figures, counts[region], columns))
    return table


def _answers(frame: Frame, figures: ClientFigures) -> Mapping[str, int]:
    """Answers by cluster; by service where calls have been answered by several."""
    by_service: Counter[str] = Counter()
    for key, count in figures.by_service.items():
        by_service[key.partition("/")[2]] += count
    everywhere = {
        key.partition("/")[2] for seen in frame.clients.values() for key in seen.by_service
    }
    return figures.by_cluster if len(everywhere) <= 1 else by_service


def _place(name: str, places: Sequence[str]) -> int:
    return places.index(name) if name in places else len(places)


def _figures(
    figures: ClientFigures, answers: Mapping[str, int], columns: Sequence[str]
) -> list[RenderableType]:
    errors = sum(figures.errors.values()) / figures.window_s
    total = figures.total_ok + figures.total_errors
    return [
        *(f"{answers.get(name, 0) / figures.window_s:.0f}" for name in columns),
        Text(f"{errors:.0f}", style="bold red" if errors else ""),
        _ms(figures.p50_ms),
        _ms(figures.p99_ms),
        Text(f"{figures.total_errors} of {total}", style="red" if figures.total_errors else ""),
    ]


def _bar(figures: ClientFigures, colours: Mapping[str, str], width: int) -> Text:
    """How the calls of the window are divided: a stretch for each cluster, red for errors."""
    parts = [(figures.by_cluster.get(name, 0), colour) for name, colour in colours.items()]
    parts.append((sum(figures.errors.values()), "red"))
    total = sum(count for count, _ in parts)
    bar, drawn, seen = Text(), 0, 0
    for count, colour in parts:
        seen += count
        until = round(width * seen / total) if total else 0
        bar.append("▇" * (until - drawn), style=colour)
        drawn = until
    bar.append("·" * (width - drawn), style="dim")
    return bar


def _errors(frame: Frame) -> Text | None:
    messages = sorted(
        {
            f"{code}: {message}"
            for figures in frame.clients.values()
            for code, message in figures.messages.items()
        }
    )
    return Text("\n".join(messages), style="red") if messages else None


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _shares(frame: Frame, colours: Mapping[str, str]) -> RenderableType:
    title = Text("weights", style="bold")
    if frame.etcd_away:
        return Group(title, Text("not known while etcd is away; gateways keep what they have"))
    if not frame.shares:
        return Group(title, Text("nothing is imported yet"))
    table = _table(
        "weights",
        *("service", "for callers in", "to", "asked", "in force", "if that fails", "why"),
        left=("for callers in", "to", "if that fails", "why"),
    )
    for share, sources in _by_sources(frame.shares).items():
        everywhere = len(sources) > 1 and len(sources) == len(frame.regions)
        moved = share.asked_bp != share.weight_bp
        table.add_row(
            share.service,
            "all regions" if everywhere else ", ".join(sources),
            Text(share.cluster, style=colours.get(share.cluster, "")),
            f"{share.asked_bp / 100:.0f} %",
            Text(f"{share.weight_bp / 100:.0f} %", style="bold yellow" if moved else ""),
            share.failover or "-",
            share.reason,
        )
    return table


def _by_sources(shares: Sequence[ShareFigures]) -> dict[ShareFigures, list[str]]:
    """Shares that are the same from several regions once, with those regions."""
    found: dict[ShareFigures, list[str]] = {}
    for share in shares:
        found.setdefault(share.from_anywhere(), []).append(share.source)
    return found


def _attention(frame: Frame) -> Text | None:
    lines = [
        Text(
            f"drain of {drain.service or 'all services'} in {drain.target}: {drain.progress}",
            style="yellow",
        )
        for drain in frame.drains
    ]
    lines += [
        Text(f"partition: {region} is cut off from the others and from etcd", style="red")
        for region in frame.cut_off
    ]
    if frame.etcd_away:
        lines.append(Text(frame.etcd_away, style="red"))
    lines += [Text(line, style="red") for line in frame.troubles]
    return Text("\n").join(lines) if lines else None


def _gateways(gateways: tuple[GatewayFigures, ...]) -> Table:
    table = _table(
        "gateways",
        *("name", "configuration", "open calls", "tries/s", "retries", "ejections"),
        "not used now",
        left=("configuration", "not used now"),
    )
    for gateway in gateways:
        state = Text(gateway.state, style="" if gateway.is_current else "yellow")
        if gateway.state == SILENT:
            table.add_row(gateway.name, state, *("-" * 5))
            continue
        table.add_row(
            gateway.name,
            state,
            str(gateway.calls_open),
            f"{gateway.tries_per_s:.0f}",
            str(gateway.retries),
            str(gateway.ejections),
            ", ".join(gateway.down) or "-",
        )
    return table


def _next(frame: Frame, leaving: str) -> Text:
    """The command that undoes what is going on, or something to try; and how to leave."""
    steps = []
    if frame.etcd_away:
        steps.append("fedctl lab start-etcd")
    if frame.cut_off:
        steps.append("fedctl lab heal")
    steps += [f"fedctl lab restore {name}" for name in _dead(frame)]
    steps += [drain.undo for drain in frame.drains]
    if not steps and not any(figures.by_cluster for figures in frame.clients.values()):
        steps += _apply(frame)
    last = frame.regions[-1] if frame.regions else "REGION"
    steps = steps or [f"fedctl drain {last}", f"fedctl lab kill {last}"]
    if leaving:
        steps.append(f"Ctrl-C {leaving}")
    return Text(f"next: {' · '.join(steps)}", style="dim")


def _apply(frame: Frame) -> list[str]:
    """How the example gets into all clusters."""
    if not frame.on_kubernetes:
        return [f"fedctl apply -f {EXAMPLE}"]
    return [f"kubectl --context {region} apply -f {EXAMPLE}" for region in frame.regions]


def _dead(frame: Frame) -> list[str]:
    """Regions whose gateways are all silent, and the silent gateways of the others."""
    silent = [gateway.name for gateway in frame.gateways if gateway.state == SILENT]
    found = []
    for region in frame.regions:
        here = [g.name for g in frame.gateways if g.name.rpartition("-")[0] == f"gateway-{region}"]
        dead = [name for name in here if name in silent]
        found += [region] if here and dead == here else dead
    return found
