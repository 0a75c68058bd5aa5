"""A relay on the lab's paths between regions: adds latency and, on demand, makes bytes vanish.

Decides: when bytes that one region sent reach the other, if at all.
Leaves to others: which paths there are (``plan.RelayRoute``), who asks for a cut (``faults``).
Invariants: order within a connection is kept; while a path is black-holed nothing passes either
way, neither bytes nor the end of a connection, and new connections are accepted and stay
silent: the kernel on loopback cannot do otherwise, and it is what a caller sees of a dead network
behind a NAT. What was sent meanwhile is held, as TCP would retransmit it, and passes on `heal`.

Bounds: 256 KiB held for each direction of a connection, then the relay stops reading (the sender
blocks, as it would with a full window); 4,096 connections, then new ones are closed at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections import deque
from collections.abc import Iterable

from aiohttp import web

from federation.cli.lab.plan import RelayPlan, RelayRoute

HELD_BYTES_MAX = 256 * 1024
READ_BYTES = 64 * 1024
CONNECTIONS_MAX = 4_096
END = b""
"""A chunk that stands for the end of a direction."""


class Valve:
    """Whether a path is open; shared by all connections of one route."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()

    def set(self, *, is_open: bool) -> None:
        """Open or close the path at once for old and new connections."""
        if is_open:
            self._open.set()
        else:
            self._open.clear()

    @property
    def is_open(self) -> bool:
        """True unless the path is black-holed."""
        return self._open.is_set()

    async def passable(self) -> None:
        """Wait until the path is open."""
        await self._open.wait()


class Pipe:
    """One direction of a connection: a bounded line of chunks, each with the time it is due."""

    def __init__(self, valve: Valve, *, delay_s: float) -> None:
        self._valve = valve
        self._delay_s = delay_s
        self._chunks: deque[tuple[float, bytes]] = deque()
        self._held = 0
        self._changed = asyncio.Condition()

    async def fill(self, reader: asyncio.StreamReader) -> None:
        """Read until the end, never holding more than the bound."""
        loop = asyncio.get_running_loop()
        chunk = b"start"
        while chunk != END:
            async with self._changed:
                await self._changed.wait_for(lambda: self._held < HELD_BYTES_MAX)
            chunk = await reader.read(READ_BYTES)
            async with self._changed:
                self._held += len(chunk)
                self._chunks.append((loop.time() + self._delay_s, chunk))
                self._changed.notify_all()

    async def drain(self, writer: asyncio.StreamWriter) -> None:
        """Write each chunk when it is due and the path is open; half-close at the end."""
        loop = asyncio.get_running_loop()
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: bool(self._chunks))
                due, chunk = self._chunks.popleft()
            if (wait_s := due - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            await self._valve.passable()
            if chunk == END:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            writer.write(chunk)
            await writer.drain()
            async with self._changed:
                self._held -= len(chunk)
                self._changed.notify_all()


class Route:
    """One listening path of the relay."""

    def __init__(self, plan: RelayRoute, *, delay_s: float) -> None:
        self.plan = plan
        self.valve = Valve()
        self._delay_s = delay_s
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        """Accept from now on."""
        host, port = self.plan.listen.rsplit(":", 1)
        self._server = await asyncio.start_server(self._accepted, host, int(port))

    async def close(self) -> None:
        """Stop accepting and end all connections."""
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._carry(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self.valve.passable()
            host, port = self.plan.target.rsplit(":", 1)
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
            return
        out, back = (Pipe(self.valve, delay_s=self._delay_s) for _ in range(2))
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(out.fill(reader))
                tasks.create_task(out.drain(far_writer))
                tasks.create_task(back.fill(far_reader))
                tasks.create_task(back.drain(writer))
        except* OSError:
            # A reset travels as a reset, once the path lets it: half of a broken connection must
            # not look alive.
            await self.valve.passable()
            writer.transport.abort()
            far_writer.transport.abort()
        finally:
            writer.close()
            far_writer.close()


class Relay:
    """All routes of one region's relay, and its control page."""

    def __init__(self, plan: RelayPlan, *, latency_ms: int) -> None:
        self._plan = plan
        half_s = latency_ms / 2_000
        # Latency stands between regions; etcd is nobody's region and stays near.
        self._routes = [
            Route(route, delay_s=half_s if route.region else 0.0) for route in plan.routes
        ]

    async def run(self) -> None:
        """Carry until SIGTERM or SIGINT."""
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        async with contextlib.AsyncExitStack() as stack:
            for route in self._routes:
                await route.listen()
                stack.push_async_callback(route.close)
            application = web.Application()
            application.router.add_put("/black-holed", self._put_black_holed)
            application.router.add_get("/black-holed", self._get_black_holed)
            runner = web.AppRunner(application, access_log=None)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            host, port = self._plan.control.rsplit(":", 1)
            await web.TCPSite(runner, host, int(port)).start()
            await stopping.wait()

    async def _put_black_holed(self, request: web.Request) -> web.Response:
        regions = await request.json()
        self.black_hole(regions)
        return await self._get_black_holed(request)

    async def _get_black_holed(self, _: web.Request) -> web.Response:
        return web.json_response(
            {route.plan.listen: not route.valve.is_open for route in self._routes}
        )

    def black_hole(self, regions: Iterable[str]) -> None:
        """Close every path that starts or ends in one of ``regions``, open all others."""
        cut = set(regions)
        for route in self._routes:
            lost = self._plan.region in cut or route.plan.region in cut
            route.valve.set(is_open=not lost)


def main(arguments: list[str]) -> None:
    """``relay PLAN-JSON LATENCY-MS``"""
    plan = RelayPlan.model_validate_json(arguments[0])
    asyncio.run(Relay(plan, latency_ms=int(arguments[1])).run())


if __name__ == "__main__":
    main(sys.argv[1:])
