"""A relay before an API server, which a test makes slow, deaf or late.

It speaks plain HTTP to clients, who need no certificate of it, and passes their tokens on.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from tests.testkit.kubernetes import KubernetesServer
from tests.testkit.ports import free_port

_PASSED_ON = ("Content-Type", "Date")


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: the path, whether it was a watch, from which version, and how many objects."""

    method: str
    path: str
    watch: bool
    version: str
    limit: str


@dataclass
class Relay:
    """How it is now; a test changes the fields while it runs.

    ``delay_s`` before each answer; ``swallow``: nothing is passed on any more, and no connection
    ends; ``swallow_watches``: what comes on open watches is lost, and none of them ends;
    ``wait_for_server``: a request waits while the server is away, and a watch that it breaks ends
    as if it were over; ``refuse``: every request is answered with this status; ``rewrite`` changes
    each line of an answer, ``date`` its date.
    """

    url: str
    asked: list[Asked] = field(default_factory=list)
    answered: list[int] = field(default_factory=list)
    delay_s: float = 0.0
    swallow: bool = False
    swallow_watches: bool = False
    wait_for_server: bool = False
    refuse: int = 0
    rewrite: Callable[[bytes], bytes] = lambda line: line
    date: str = ""
    expired: int = 0

    def watches(self, kind: str) -> list[Asked]:
        """The watches of a plural that were asked for."""
        return [asked for asked in self.asked if asked.watch and asked.path.endswith(f"/{kind}")]

    async def watched(self, kind: str, *, times: int) -> None:
        """Return once a plural was watched so often."""
        while len(self.watches(kind)) < times:  # noqa: ASYNC110 - another thread counts
            await asyncio.sleep(0.1)

    def lists(self, kind: str) -> int:
        """How often a plural was listed, for more than the server's version."""
        return sum(
            not asked.watch
            and asked.method == "GET"
            and asked.path.endswith(f"/{kind}")
            and asked.limit != "1"
            for asked in self.asked
        )


class _Handler:
    def __init__(self, relay: Relay, upstream: str, session: aiohttp.ClientSession) -> None:
        self._relay = relay
        self._upstream = upstream
        self._session = session

    async def serve(self, request: web.Request) -> web.StreamResponse:
        relay, watch = self._relay, request.query.get("watch") == "true"
        version = request.query.get("resourceVersion", "")
        limit = request.query.get("limit", "")
        relay.asked.append(Asked(request.method, request.path, watch, version, limit))
        await self._hold(watch=False)
        if relay.refuse:
            return web.json_response({"kind": "Status", "code": relay.refuse}, status=relay.refuse)
        await asyncio.sleep(relay.delay_s)
        async with self._answer(request) as answer:
            relay.answered.append(answer.status)
            headers = {name: answer.headers[name] for name in _PASSED_ON if name in answer.headers}
            if relay.date:
                headers["Date"] = relay.date
            passed = web.StreamResponse(status=answer.status, headers=headers)
            await passed.prepare(request)
            with contextlib.suppress(aiohttp.ClientError):
                while line := await answer.content.readline():
                    if watch and relay.swallow_watches:
                        continue
                    await self._hold(watch=watch)
                    if b'"code":410' in line:
                        relay.expired += 1
                    await passed.write(relay.rewrite(line))
            await self._hold(watch=watch)
            return passed

    async def _hold(self, *, watch: bool) -> None:
        # At a beat, since the test's thread changes the fields.
        while self._relay.swallow or (watch and self._relay.swallow_watches):  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    @contextlib.asynccontextmanager
    async def _answer(self, request: web.Request) -> AsyncIterator[aiohttp.ClientResponse]:
        body = await request.read()
        headers = {
            name: value
            for name, value in request.headers.items()
            if name in ("Authorization", "Content-Type", "Accept")
        }
        while True:
            try:
                answer = await self._session.request(
                    request.method, f"{self._upstream}{request.rel_url}", data=body, headers=headers
                )
            except aiohttp.ClientError:
                if not self._relay.wait_for_server:
                    raise
                await asyncio.sleep(0.1)
                continue
            if answer.status in (403, 500, 503) and self._relay.wait_for_server:
                answer.close()  # a server that starts refuses everyone
                await asyncio.sleep(0.1)
                continue
            break
        try:
            yield answer
        finally:
            answer.close()


@contextlib.contextmanager
def relay_before(server: KubernetesServer) -> Iterator[Relay]:
    """A relay to ``server``, in a thread of its own."""
    port = free_port()
    relay = Relay(f"http://127.0.0.1:{port}")
    started = threading.Event()
    running: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def run() -> None:
        stop = asyncio.Event()
        running.append((asyncio.get_running_loop(), stop))
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
        connector = aiohttp.TCPConnector(ssl=trusting, limit=0)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, read_bufsize=1 << 24
        ) as session:
            application = web.Application(client_max_size=1 << 24)
            handler = _Handler(relay, server.url, session)
            application.router.add_route("*", "/{path:.*}", handler.serve)
            runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", port).start()
            started.set()
            await stop.wait()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await runner.cleanup()
        await asyncio.sleep(0.3)  # TLS connections take a moment to close (aiohttp's own advice)

    thread = threading.Thread(target=asyncio.run, args=[run()], daemon=True)
    thread.start()
    assert started.wait(10)
    try:
        yield relay
    finally:
        for loop, stop in running:
            loop.call_soon_threadsafe(stop.set)
        thread.join(timeout=10)
