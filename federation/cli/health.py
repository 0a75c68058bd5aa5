"""Health over HTTP for what runs in Pods: ``/healthz`` (it lives), ``/readyz`` (it can work), and
``/metrics``.

Decides: paths and forms of the answers.
Leaves to others: what being ready means (who fills in ``Readiness``).
Invariants: an answer comes from the event loop that does the work, so a loop that hangs shows as
dead; asking changes nothing and costs no I/O; losing a peer or the store makes nobody less ready
than he was, because what is known goes on being served.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from federation.cli.context import CommandError

WhyNot = Callable[[], str]
"""Why the process cannot work yet, in words; empty: it can."""


class Readiness:
    """What ``/readyz`` answers: that the process starts, until it is told whom to ask."""

    def __init__(self) -> None:
        self.why_not: WhyNot = lambda: "it is starting"
        self.registry = CollectorRegistry()
        """What ``/metrics`` shows (Prometheus); empty as long as nobody counts anything."""


@asynccontextmanager
async def health_served(address: str | None, readiness: Readiness) -> AsyncGenerator[None, None]:
    """Serve all paths on ``address`` (``HOST:PORT``; ``None``: nowhere) while the body runs.

    Raises ``CommandError`` when the address cannot be had.
    """
    if address is None:
        yield
        return
    from aiohttp import web

    async def live(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def ready(_request: web.Request) -> web.Response:
        reason = readiness.why_not()
        return web.Response(text=f"{reason or 'ok'}\n", status=503 if reason else 200)

    async def metrics(_request: web.Request) -> web.Response:
        body = generate_latest(readiness.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    application = web.Application()
    application.router.add_get("/healthz", live)
    application.router.add_get("/readyz", ready)
    application.router.add_get("/metrics", metrics)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    host, _, port = address.rpartition(":")
    try:
        await web.TCPSite(runner, host.strip("[]"), int(port)).start()
    except OSError as error:
        await runner.cleanup()
        raise CommandError(f"cannot serve health on {address}: {error.strerror}") from error
    try:
        yield
    finally:
        await runner.cleanup()
