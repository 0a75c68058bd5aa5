"""The admin endpoint: readiness, numbers, configuration, trust, peers, events, taps, drain.

Decides: paths and forms of the answers.
Leaves to others: every fact in them. Traffic does not pass here, and a slow reader here slows none.
Invariants: key material is never shown; reading changes nothing; ``POST /drain`` alone acts. Where
the address is not loopback, callers from elsewhere have ``OPEN_PATHS`` alone. No web page gets
anything done: neither by a request of its own, nor under a name that it made lead here.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import asdict
from typing import Any, Protocol

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from gateway.metrics import Reading, expiries, exposition, families
from gateway.metrics.text import OPENMETRICS_TYPE, PLAIN_TYPE, wants_openmetrics
from gateway.peers import reachability
from gateway.runtime import Runtime
from gateway.settings import IdentityFiles
from gateway.status import Status, release
from gateway.tap import TapRefused, Taps, write_lines
from gateway.trust import certificates
from gateway.xds_translate import Kind, Piece

EVENTS_MAX = 1024
"""Events kept for ``/events``; the oldest goes first."""

OPEN_PATHS = ("/healthz", "/ready", "/metrics")
"""For callers from everywhere: probes and scrapes. ``kubectl port-forward`` and ``kubectl exec``
come from loopback, as far as the gateway sees."""


class AdminError(Exception):
    """The admin endpoint cannot listen; the message says where and why."""


class Subject(Protocol):
    """The gateway as the admin endpoint sees it."""

    runtime: Runtime
    events: deque[Mapping[str, Any]]

    def status(self) -> Status:
        """What the gateway says about itself."""
        ...

    def stats(self) -> Mapping[str, Any]:
        """The core's counters."""
        ...

    def identity_files(self) -> IdentityFiles | None:
        """The identity that this gateway shows its peers."""
        ...

    def begin_drain(self) -> None:
        """Stop taking new work."""
        ...


class Admin:
    """Serves one gateway's admin endpoint."""

    def __init__(self, subject: Subject, *, address: str) -> None:
        self._subject = subject
        self._address = address
        self._runner: web.AppRunner | None = None
        self._taps = Taps(subject.runtime.core, subject.stats)

    @property
    def address(self) -> str:
        """``HOST:PORT`` listened on; the real port once started."""
        return self._address

    async def start(self) -> None:
        """Listen. Raises ``AdminError``."""
        application = web.Application(middlewares=[_guard])
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/ready", self._ready)
        application.router.add_get("/stats", self._stats)
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/config_dump", self._config_dump)
        application.router.add_get("/events", self._events)
        application.router.add_get("/telemetry", self._telemetry)
        application.router.add_get("/certificates", self._certificates)
        application.router.add_get("/peers", self._peers)
        application.router.add_get("/tap", self._tap)
        application.router.add_post("/drain", self._drain)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        host, _, port = self._address.rpartition(":")
        site = web.TCPSite(self._runner, host.strip("[]"), int(port))
        try:
            await site.start()
        except OSError as failure:
            raise AdminError(
                f"cannot serve the admin endpoint on {self._address}: {failure.strerror}"
            ) from failure
        bound = self._runner.addresses[0]
        self._address = f"{host}:{bound[1]}"

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _ready(self, _request: web.Request) -> web.Response:
        status = self._subject.status()
        return _json(status_body(status), status=200 if status.ready else 503)

    async def _stats(self, _request: web.Request) -> web.Response:
        status = status_body(self._subject.status())
        return _json({"gateway": status, "core": dict(self._subject.stats())})

    async def _metrics(self, request: web.Request) -> web.Response:
        openmetrics = wants_openmetrics(request.headers.get("Accept", ""))
        # What the event loop changes is read here; counting together and writing happen beside it.
        status = self._subject.status()
        ends = expiries(self._subject.runtime.in_force)

        def body() -> bytes:
            reading = Reading(self._subject.stats(), status, ends)
            return exposition(families(reading), openmetrics=openmetrics)

        return web.Response(
            body=await asyncio.to_thread(body),
            headers={"Content-Type": OPENMETRICS_TYPE if openmetrics else PLAIN_TYPE},
        )

    async def _config_dump(self, _request: web.Request) -> web.Response:
        return _json(config_dump(self._subject.runtime))

    async def _events(self, _request: web.Request) -> web.Response:
        return _json(list(self._subject.events))

    async def _telemetry(self, _request: web.Request) -> web.Response:
        stats = self._subject.stats()
        return _json({"recorded": stats.get("telemetry", []), "exports": stats.get("exports", [])})

    async def _certificates(self, _request: web.Request) -> web.Response:
        return _json(certificates(self._subject.runtime.in_force))

    async def _peers(self, _request: web.Request) -> web.Response:
        subject = self._subject
        found = await reachability(
            subject.runtime.in_force, subject.identity_files(), subject.stats()
        )
        return _json(found)

    async def _tap(self, request: web.Request) -> web.StreamResponse:
        """Live calls as lines of JSON, for as long as somebody reads."""
        try:
            wanted = json.loads(request.query.get("filter", "{}"))
        except ValueError as error:
            return _json({"why": f"filter: {error}"}, status=400)
        async with aclosing(self._taps.watch(wanted)) as lines:
            try:
                first = await anext(lines)
            except TapRefused as refused:
                return _json({"why": str(refused)}, status=409)
            answer = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
            await answer.prepare(request)
            await answer.write(first)
            await write_lines(lines, answer.write)
        return answer

    async def _drain(self, _request: web.Request) -> web.Response:
        self._subject.begin_drain()
        return _json(status_body(self._subject.status()), status=202)


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse whom this is not for; the answer says why."""
    why = _refused(request)
    return await handler(request) if why is None else _json({"why": why}, status=403)


def _refused(request: web.Request) -> str | None:
    if request.method != hdrs.METH_GET and hdrs.ORIGIN in request.headers:
        return "this is a web page's request (it has an Origin); ask with fedctl or curl"
    if request.path in OPEN_PATHS:
        return None
    if not _is_here(request.host):
        return (
            f"the Host {request.host} is neither an IP address nor localhost: a web page may have "
            "made this name lead here; ask for the address itself"
        )
    peer = request.transport and request.transport.get_extra_info("peername")
    if peer and not _is_loopback(peer[0]):
        return (
            f"callers from elsewhere may ask for {', '.join(OPEN_PATHS)} alone; ask from this "
            "machine or Pod: kubectl port-forward, or kubectl exec"
        )
    return None


def _is_here(host: str) -> bool:
    """Whether a Host header is an IP address or localhost, with or without a port."""
    name = host.partition("]")[0][1:] if host.startswith("[") else host.partition(":")[0]
    if name.lower().rstrip(".") == "localhost":
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback


def status_body(status: Status) -> dict[str, Any]:
    """A status as JSON, with this program's version and this machine's clock."""
    return asdict(status) | {"ready": status.ready, "release": release(), "clock_s": time.time()}


def config_dump(runtime: Runtime) -> dict[str, Any]:
    """What is in force, refused and waiting; secrets by name only."""
    assembly = runtime.assembly
    waiting = {
        str(i): [str(n) for n in needs] for i in assembly.wanted if (needs := assembly.waiting(i))
    }
    return {
        "version": runtime.version,
        **{
            str(kind): _dump(p for i, p in runtime.in_force.items() if i.kind is kind)
            for kind in Kind
        },
        "refused": {str(i): message for i, message in runtime.refusals().items()},
        "waiting": waiting,
        "pending": _pending(runtime),
    }


def _pending(runtime: Runtime) -> list[dict[str, Any]]:
    """What the control plane has sent otherwise than it is in force; ``None``: not at all."""
    wanted = {i: piece for i, piece in runtime.assembly.wanted.items() if piece.origin is not None}
    ids = wanted.keys() | {i for i, piece in runtime.in_force.items() if piece.origin is not None}
    differing = [i for i in sorted(ids) if wanted.get(i) != runtime.in_force.get(i)]
    return [
        {
            "kind": str(i.kind),
            "name": i.name,
            "sent": _dump([wanted[i]])[0] if i in wanted else None,
        }
        for i in differing
    ]


def _dump(pieces: Iterable[Piece]) -> list[dict[str, Any]]:
    return [
        {
            "name": piece.id.name,
            "version": piece.origin.version if piece.origin else None,
            "body": "redacted" if piece.id.kind is Kind.SECRETS else piece.body,
        }
        for piece in sorted(pieces, key=lambda piece: piece.id)
    ]


def _json(body: object, *, status: int = 200) -> web.Response:
    dumps: Callable[[object], str] = lambda value: json.dumps(value, indent=2, sort_keys=True)  # noqa: E731
    return web.json_response(body, status=status, dumps=dumps)
