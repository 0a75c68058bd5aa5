"""The API: which paths there are, what each needs, and who answers it.

Decides: paths, the right that each asks for, sessions, the statuses of what operations refuse.
Leaves to others: contents (``document``, ``services``, ``details``), operations (``operations``).
Invariants: nothing is answered before the door has said who asks; what changes something wants the
right to write and the page's own token.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from federation.console import details, services
from federation.console.answers import (
    PAGE_MAX,
    Body,
    RefusalError,
    bad,
    body_of,
    choice_of,
    cut,
    not_found,
    number_of,
)
from federation.console.document import drains
from federation.console.drains import Drains
from federation.console.events import stream_events
from federation.console.guard import COOKIE, Caller, Guard, unauthenticated
from federation.console.history import Place, Timeline, Wanted
from federation.console.live import Live, Made
from federation.console.rights import Principal, Via
from federation.console.routes import Routes
from federation.console.settings import ConsoleSettings
from federation.console.state import Followed
from federation.derive.explain import find_service
from federation.derive.timeline import Kind
from federation.model.base import Region, ServiceName
from federation.ports import Clock, Store
from federation.wire.etcd_keys import Keys

_Answer = Callable[[web.Request, Caller], Awaitable[web.StreamResponse]]


class _Nothing(Body):
    """A body without fields."""


class Api:
    """Answers of one console."""

    def __init__(
        self,
        *,
        store: Store,
        keys: Keys,
        clock: Clock,
        settings: ConsoleSettings,
        guard: Guard,
        live: Live,
        followed: Followed,
        routes: Routes,
        timeline: Timeline,
    ) -> None:
        self._keys = keys
        self._clock = clock
        self._settings = settings
        self._guard = guard
        self._live = live
        self._followed = followed
        self._routes = routes
        self._timeline = timeline
        self._drains = Drains(store, keys, followed.now)

    def register(self, router: web.UrlDispatcher) -> None:
        """Put all paths below ``/api`` into ``router``."""
        router.add_get("/api/session", self._session)
        router.add_post("/api/session", self._sign_in)
        router.add_delete("/api/session", self._sign_out)
        for path, answer in (
            ("/api/overview", self._overview),
            ("/api/events", self._events),
            ("/api/services", self._services),
            ("/api/services/{namespace}/{name}", self._service),
            ("/api/exports", self._exports),
            ("/api/gateways", self._gateways),
            ("/api/drains", self._all_drains),
            ("/api/routes", self._routes.list),
            ("/api/timeline", self._decisions),
        ):
            router.add_get(path, self._reading(answer))
        router.add_post("/api/routes/test", self._reading(self._routes.test, checked=True))
        router.add_post("/api/drains/preview", self._reading(self._drains.preview, checked=True))
        router.add_post("/api/drains", self._writing(self._drains.start))
        router.add_delete("/api/drains/{name}", self._writing(self._drains.stop))
        router.add_route("*", "/api/{rest:.*}", _nothing_here)

    def _reading(
        self, answer: _Answer, *, checked: bool = False
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            caller = await self._guard.caller(request)
            if caller.principal is None:
                raise unauthenticated(caller.rights.why_not_read)
            if caller.rights.why_not_read:
                raise RefusalError(403, "forbidden", caller.rights.why_not_read)
            if checked:
                self._guard.check_forgery(request, caller)
            return await answer(request, caller)

        return handle

    def _writing(self, answer: _Answer) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def checked(request: web.Request, caller: Caller) -> web.StreamResponse:
            if caller.rights.why_not_write:
                raise RefusalError(403, "forbidden", caller.rights.why_not_write)
            return await answer(request, caller)

        return self._reading(checked, checked=True)

    # Sessions.

    async def _session(self, request: web.Request) -> web.Response:
        caller = await self._guard.caller(request)
        return self._about(request, caller, caller.session or self._guard.new_session())

    async def _sign_in(self, request: web.Request) -> web.Response:
        header = request.headers.get("Authorization")
        if header is None:
            raise unauthenticated("sign in with `Authorization: Bearer TOKEN`")
        caller = await self._guard.caller(request)
        self._guard.check_forgery(request, caller)
        await body_of(request, _Nothing)
        assert caller.principal is not None  # a token was believed, or we are not here
        return self._about(request, caller, self._guard.sign_in(caller.principal))

    async def _sign_out(self, request: web.Request) -> web.Response:
        caller = await self._guard.caller(request)
        self._guard.check_forgery(request, caller)
        self._guard.sign_out(caller.session)
        answer = web.Response(status=204)
        answer.del_cookie(COOKIE, path="/")
        return answer

    def _about(self, request: web.Request, caller: Caller, session: str) -> web.Response:
        access, rights, principal = self._settings.access, caller.rights, caller.principal
        answer = web.json_response(
            {
                "user": principal.user if principal else None,
                "via": principal.via.value if principal else None,
                "rights": {"read": not rights.why_not_read, "write": not rights.why_not_write},
                "whyNot": {
                    "read": rights.why_not_read or None,
                    "write": rights.why_not_write or None,
                },
                "signIn": {"bearer": access.oidc is not None, "certificate": access.certificates},
                "csrf": self._guard.csrf(session),
                "expiresAt": principal.expires_at if principal else None,
                "version": self._settings.version,
            }
        )
        if request.cookies.get(COOKIE) != session:
            answer.set_cookie(COOKIE, session, **self._guard.cookie())
        return answer

    # What is known.

    def _made(self) -> Made:
        made = self._live.made.value
        if made is None or made.now.at == 0:
            raise RefusalError(
                503,
                "store_away",
                "the console has not read the federation yet: etcd has not answered",
                headers={"Retry-After": "1"},
            )
        return made

    def _stamped(self, made: Made, found: dict[str, Any]) -> web.Response:
        return web.json_response({"at": made.now.at, "revision": made.now.view.revision, **found})

    async def _overview(self, _request: web.Request, _caller: Caller) -> web.Response:
        return web.json_response(self._made().document)

    async def _events(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        return await stream_events(
            request,
            self._live,
            self._settings.limits,
            now=self._clock.now,
            who=_person(caller.principal),
            may_read=lambda: self._guard.holds(caller),
        )

    async def _services(self, request: web.Request, _caller: Caller) -> web.Response:
        made = self._made()
        order = choice_of(request, "sort", services.Order, services.Order.NAME)
        query = services.Query(
            text=request.query.get("q", "")[:200],
            namespace=request.query.get("namespace", ""),
            cluster=request.query.get("cluster", ""),
            state=choice_of(request, "state", services.State, None),
            source=Region(request.query["from"]) if request.query.get("from") else None,
            order=order or services.Order.NAME,
            page=number_of(request, "page", 1),
            per=number_of(request, "per", 50, most=PAGE_MAX),
        )
        now = made.now
        return self._stamped(made, services.page(now.view, made.services, now.traffic, query))

    async def _service(self, request: web.Request, _caller: Caller) -> web.Response:
        made = self._made()
        asked = ServiceName(
            namespace=request.match_info["namespace"], name=request.match_info["name"]
        )
        found = find_service(made.now.view, asked)
        if found is None:
            raise not_found(
                f"no service or import is named {asked}; it may have gone, or its cluster has "
                "not exported it yet (GET /api/services lists all)"
            )
        about = details.service(made, found, self._keys)
        story = self._timeline.page(Wanted(service=str(found), limit=50))
        return self._stamped(made, about | {"timeline": story["entries"]})

    async def _exports(self, request: web.Request, _caller: Caller) -> web.Response:
        made = self._made()
        found = details.matching_exports(
            made,
            text=request.query.get("q", "")[:200],
            cluster=request.query.get("cluster", ""),
            conflicts=request.query.get("state", "") == "conflict",
        )
        about, rows = cut(request, found)
        total = sum(len(exports) for exports in made.now.view.exports.values())
        shown = [details.export(made.now, *row, keys=self._keys) for row in rows]
        return self._stamped(made, {"total": total, **about, "exports": shown})

    async def _decisions(self, request: web.Request, _caller: Caller) -> web.Response:
        wanted = Wanted(
            text=request.query.get("q", "")[:200],
            kind=choice_of(request, "kind", Kind, None),
            cluster=request.query.get("cluster", ""),
            service=request.query.get("service", ""),
            before=_place_of(request),
            limit=number_of(request, "limit", 100, most=500),
        )
        return web.json_response({"at": self._clock.now(), **self._timeline.page(wanted)})

    async def _gateways(self, _request: web.Request, _caller: Caller) -> web.Response:
        made = self._made()
        return self._stamped(made, details.gateways(made.now))

    async def _all_drains(self, _request: web.Request, _caller: Caller) -> web.Response:
        made = self._made()
        members = made.now.view.members
        targets = {
            "regions": sorted({member.region for member in members.values()}),
            "clusters": sorted(members),
        }
        return self._stamped(made, {"drains": list(drains(made.now).values()), "targets": targets})


def _person(principal: Principal | None) -> str:
    """Whose streams are counted together; empty where nobody says who he is."""
    if principal is None or principal.via is Via.LOOPBACK:
        return ""
    return f"{principal.via.value} {principal.user}"


def _place_of(request: web.Request) -> Place | None:
    text = request.query.get("before", "")
    try:
        return Place.of(text) if text else None
    except ValueError as error:
        raise bad(f'before: "{text[:40]}" is no id of an entry (12.0)') from error


async def _nothing_here(request: web.Request) -> web.StreamResponse:
    raise not_found(f"there is nothing at {request.method} {request.path[:100]}")
