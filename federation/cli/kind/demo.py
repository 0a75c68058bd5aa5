"""``fedctl kind demo``: one name over two regions, one of them drained with calls running.

Decides: what is applied, what is waited for, what is told of it.
Leaves to others: the calls and their figures (``lab.client``), the drain (``fedctl drain``).
Invariants: calls run from before the drain until after its end, from both regions, on a fixed beat;
from when both regions answer on, each that fails is counted and makes the demo fail; what was
drained is drained no more at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from federation.aio import cancel_and_wait
from federation.cli.kind.site import Site, manifests
from federation.cli.kind.tools import ToolError
from federation.cli.lab.client import WINDOW_S, Client, ClientFigures

EXAMPLE = "clusters/examples/multi-cluster.yaml"
WAIT_S = 120.0
LOOK_EVERY_S = 0.5
DRAIN = ("--over", "10s", "--grace", "5s", "--wait")

Say = Callable[[str], None]


async def show(site: Site, *, rate: int, say: Say) -> int:
    """Run the demo, with ``rate`` calls a second in each region; returns how many were lost.

    Raises ``ToolError`` when something does not come about in time.
    """
    for member in site.members:
        await asyncio.to_thread(member.kubectl.apply, "-f", str(manifests(EXAMPLE)))
    say(f"applied {EXAMPLE} to {' and '.join(m.region for m in site.members)}: 60 % and 40 %")
    regions = {member.region for member in site.members}
    drained = site.members[-1].region
    async with _calling(site, rate) as clients:
        await _until(clients, lambda seen: seen == regions, "both regions answer")
        _tell(say, "before", clients)
        made, lost = _totals(clients)
        say((await asyncio.to_thread(site.fedctl, "drain", drained, *DRAIN)).strip())
        try:
            await _until(clients, lambda seen: seen == regions - {drained}, f"{drained} is left")
            _tell(say, f"{drained} drained", clients)
        finally:
            say((await asyncio.to_thread(site.fedctl, "undrain", drained)).strip())
        await _until(clients, lambda seen: seen == regions, f"{drained} answers again")
        _tell(say, "after", clients)
        made, lost = (
            now - before for now, before in zip(_totals(clients), (made, lost), strict=True)
        )
    say(f"{made} calls were answered meanwhile and {lost} lost")
    return lost


def _totals(clients: dict[str, Client]) -> tuple[int, int]:
    """Calls answered and lost by now."""
    figures = [client.figures() for client in clients.values()]
    return sum(seen.total_ok for seen in figures), sum(seen.total_errors for seen in figures)


@asynccontextmanager
async def _calling(site: Site, rate: int) -> AsyncGenerator[dict[str, Client], None]:
    """Clients in each region that call from now on, by region."""
    ca = site.client_ca.read_bytes()
    clients = {
        member.region: Client([member.entrance], rate=rate, ca=ca) for member in site.members
    }
    with TemporaryDirectory() as place:
        running = [
            asyncio.create_task(client.run(out=Path(place) / region))
            for region, client in clients.items()
        ]
        try:
            yield clients
        finally:
            for task in running:
                await cancel_and_wait(task)
            for client in clients.values():
                await client.close()


async def _until(clients: dict[str, Client], holds: Callable[[set[str]], bool], what: str) -> None:
    """Wait until, for a whole window of figures, the clusters that answer are such that ``holds``.

    Raises ``ToolError`` with what was seen instead.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WAIT_S
    held_since: float | None = None
    while held_since is None or loop.time() - held_since < WINDOW_S:
        answers = [client.figures() for client in clients.values()]
        good = all(holds(set(seen.by_cluster)) and not seen.errors for seen in answers)
        held_since = (held_since or loop.time()) if good else None
        if loop.time() > deadline:
            raise ToolError(f"waited {WAIT_S:.0f} s until {what}; seen: {_told(clients)}")
        await asyncio.sleep(LOOK_EVERY_S)


def _tell(say: Say, when: str, clients: dict[str, Client]) -> None:
    for line in _told(clients).splitlines():
        say(f"{when}: {line}")


def _told(clients: dict[str, Client]) -> str:
    return "\n".join(
        f"calls from {region}: {_figures(client.figures())}" for region, client in clients.items()
    )


def _figures(seen: ClientFigures) -> str:
    total = sum(seen.by_cluster.values())
    parts = [
        f"{round(100 * count / total)} % answered by {cluster}"
        for cluster, count in sorted(seen.by_cluster.items())
    ]
    parts += [
        f"{count} {status} ({seen.messages[status]})" for status, count in seen.errors.items()
    ]
    p99 = f"p99 {seen.p99_ms:.0f} ms" if seen.p99_ms is not None else "no answer"
    return ", ".join([*parts, p99])
