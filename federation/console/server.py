"""The console's process: what it follows, what it serves, and how it ends.

Decides: which parts run, the order of starting and stopping, TLS, what every request passes before
it is answered.
Leaves to others: the answers (``api``), the door (``guard``), the store and the objects' sources
(``cli`` gives them).
Invariants: it changes nothing but drains of operators, and those only for who may; what it serves
while etcd is away is the last that it read; no failure of one request ends another.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from aiohttp import web

from federation.aio import supervised
from federation.console.answers import RefusalError
from federation.console.api import Api
from federation.console.assets import Assets
from federation.console.guard import HEADERS, Guard
from federation.console.history import Timeline
from federation.console.live import Live
from federation.console.routes import Routes, Sources
from federation.console.settings import ConsoleSettings, TlsFiles
from federation.console.state import Followed
from federation.ports import Clock, PortError, Store, StoreHistory
from federation.wire.etcd_keys import Keys

log = logging.getLogger(__name__)

TLS_LOOK_S = 10.0
"""Time between two looks whether the certificate was renewed."""
STOP_S = 2.0

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ConsoleError(Exception):
    """The console cannot start; the message says why."""


class Console:
    """One console; ``serving`` runs it."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        keys: Keys,
        settings: ConsoleSettings,
        sources: Sources,
        history: StoreHistory,
    ) -> None:
        """``sources`` gives the objects of a cluster, for routes; ``history`` the store's past."""
        self._settings = settings
        self._guard = Guard(settings, clock)
        self._assets = Assets()
        self._followed = Followed(store, keys, clock, settle_s=settings.limits.tick_s / 2)
        self._timeline = Timeline(
            history,
            keys,
            clock,
            revisions=settings.history_revisions,
            entries=settings.timeline_entries,
        )
        others = (("timeline", self._timeline.version),)
        self._live = Live(self._followed.now, settings.limits, others=others)
        self._routes = Routes(self._live, sources, settings.compile)
        self._api = Api(
            store=store,
            keys=keys,
            clock=clock,
            settings=settings,
            guard=self._guard,
            live=self._live,
            followed=self._followed,
            routes=self._routes,
            timeline=self._timeline,
        )

    def __repr__(self) -> str:
        return f"Console({self._settings.host}:{self._settings.port}, {self._live!r})"

    @property
    def why_not_ready(self) -> str:
        """Why it cannot serve yet; empty: it can."""
        return "" if self._followed.ready else "etcd has not answered yet"

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[None, None]:
        """Follow and serve while the body runs. Raises ``ConsoleError`` when it cannot start."""
        settings = self._settings
        tls = _tls(settings.tls) if settings.tls is not None else None
        runner = web.AppRunner(
            self._application(), access_log=None, shutdown_timeout=STOP_S, handler_cancellation=True
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, settings.host, settings.port, ssl_context=tls).start()
        except OSError as error:
            await runner.cleanup()
            raise ConsoleError(
                f"cannot listen on {settings.host}:{settings.port}: {error.strerror}; name another "
                "address with --listen"
            ) from error
        loops = [self._followed.run, self._live.run, self._timeline.run]
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(supervised("console", loop, on_failure=_report))
                    for loop in loops
                ]
                if tls is not None and settings.tls is not None:
                    running.append(tasks.create_task(_renewed(tls, settings.tls)))
                try:
                    yield
                finally:
                    self._live.end("the console is stopping")
                    for task in running:
                        task.cancel()
        finally:
            await self._routes.close()
            await self._guard.close()
            await runner.cleanup()

    def _application(self) -> web.Application:
        application = web.Application(
            middlewares=[self._served], client_max_size=self._settings.limits.body_bytes
        )
        application.on_response_prepare.append(_with_headers)
        self._api.register(application.router)
        application.router.add_get("/{path:.*}", self._assets.serve)
        return application

    @web.middleware
    async def _served(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Every request passes here; whatever happens, it gets an answer in our form."""
        try:
            self._guard.check_host(request)
            return await handler(request)
        except RefusalError as refusal:
            return refusal.response()
        except web.HTTPRequestEntityTooLarge:
            most = self._settings.limits.body_bytes
            message = f"the body is larger than {most} bytes"
            return RefusalError(413, "too_large", message).response()
        except web.HTTPMethodNotAllowed as error:
            allowed = ", ".join(sorted(error.allowed_methods))
            message = f"{request.method} is not allowed on {request.path[:100]}; allowed: {allowed}"
            headers = {"Allow": allowed}
            return RefusalError(405, "not_allowed", message, headers=headers).response()
        except web.HTTPException:
            message = f"there is nothing at {request.path[:100]}"
            return RefusalError(404, "not_found", message).response()
        except PortError as error:
            message = f"etcd does not answer as it should: {error}; traffic goes on as it is"
            return RefusalError(503, "store_away", message).response()
        except Exception:  # a supervisor's place: no request ends another
            if request.writer.output_size > 0:
                raise  # a part of the answer is gone already
            log.exception("request failed", extra={"path": request.path[:100]})
            message = "the console failed to answer this; its log says why"
            return RefusalError(500, "internal", message).response()


async def _with_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)
    if request.path.startswith("/api/"):
        response.headers["Cache-Control"] = "no-store"
    response.headers.pop("Server", None)


def _report(name: str, failure: Exception, wait_s: float) -> None:
    log.error("loop failed", extra={"loop": name, "retry_in_s": wait_s}, exc_info=failure)


def _tls(files: TlsFiles) -> ssl.SSLContext:
    """TLS as a server. Who shows no certificate gets a sentence, not a broken handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(files.certificate, files.private_key)
        if files.client_ca is not None:
            context.load_verify_locations(files.client_ca)
            context.verify_mode = ssl.CERT_OPTIONAL
    except (OSError, ssl.SSLError) as error:
        raise ConsoleError(
            f"reading {files.certificate}, {files.private_key} or {files.client_ca}: {error}"
        ) from error
    return context


async def _renewed(context: ssl.SSLContext, files: TlsFiles) -> None:
    """Take a renewed certificate up for new connections."""
    loaded = _times(files)
    while True:
        await asyncio.sleep(TLS_LOOK_S)
        if (found := _times(files)) != loaded and found is not None:
            with suppress(OSError, ssl.SSLError):  # half written: the next look has all of it
                context.load_cert_chain(files.certificate, files.private_key)
                loaded = found


def _times(files: TlsFiles) -> tuple[int, int] | None:
    try:
        return files.certificate.stat().st_mtime_ns, files.private_key.stat().st_mtime_ns
    except OSError:
        return None
