"""The console's door: which requests are served at all, and for whom.

Decides: allowed names in ``Host`` (against DNS rebinding), who asks (token, session,
certificate), forgery across sites (a token and ``Origin``), headers of every answer, how failures
are slowed down.
Leaves to others: what tokens are worth (``tokens``), what people may do (``rights``).

A browser shows cookies and certificates by itself, whoever made the page: what changes something
then needs the page's own token and our own origin. Who sends ``Authorization`` did so on purpose.

Invariants: every table here is bounded; sessions are kept for those alone who signed in, so that
nobody else can push them out.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from federation.console.answers import RefusalError
from federation.console.rights import ANYBODY, Principal, Rights, Via, rights_of
from federation.console.settings import ConsoleSettings
from federation.console.tokens import (
    FETCH_AGAIN_S,
    Claims,
    TokenError,
    TokenVerifier,
    UncheckedError,
)
from federation.ports import Clock

COOKIE = "federation_console"
CSRF_HEADER = "X-CSRF-Token"
SESSIONS_MAX = 1_024
ADDRESSES_MAX = 4_096

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; manifest-src 'self'; form-action 'none'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. ``ambient``: his browser says so by itself. ``session`` is his cookie."""

    principal: Principal | None
    rights: Rights
    ambient: bool
    session: str


class Failures:
    """How often each address failed lately; at the bound who failed first is forgotten."""

    def __init__(self, allowed: int, within_s: float, monotonic: Callable[[], float]) -> None:
        self._allowed = allowed
        self._within_s = within_s
        self._monotonic = monotonic
        self._counted: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def count(self, address: str) -> None:
        """One more failure. Raises ``RefusalError`` when there were too many."""
        now = self._monotonic()
        began, failed = self._counted.get(address, (now, 0))
        if now - began > self._within_s:
            began, failed = now, 0
        self._counted[address] = (began, failed + 1)
        while len(self._counted) > ADDRESSES_MAX:
            self._counted.popitem(last=False)
        if failed + 1 > self._allowed:
            wait_s = max(1, round(self._within_s - (now - began)))
            raise RefusalError(
                429,
                "rate_limited",
                f"too many failed sign-ins from {address}; try again in {wait_s} s",
                headers={"Retry-After": str(wait_s)},
            )


class Guard:
    """Judges requests."""

    def __init__(self, settings: ConsoleSettings, clock: Clock) -> None:
        self._settings = settings
        self._access = settings.access
        self._clock = clock
        limits = settings.limits
        self._failures = Failures(limits.failures, limits.failures_s, clock.monotonic)
        self._verifier = (
            TokenVerifier(self._access.oidc, monotonic=clock.monotonic)
            if self._access.oidc is not None
            else None
        )
        self._secret = secrets.token_bytes(32)
        self._sessions: OrderedDict[str, Principal] = OrderedDict()
        names = {settings.host.lower(), *(name.lower() for name in settings.hosts)}
        self._hosts = names | (LOOPBACK_NAMES if settings.host.lower() in LOOPBACK_NAMES else set())

    def __repr__(self) -> str:
        return f"Guard(sessions={len(self._sessions)})"

    async def close(self) -> None:
        """Check nobody any more."""
        if self._verifier is not None:
            await self._verifier.close()

    def check_host(self, request: web.Request) -> None:
        """Refuse a request that was meant for another name."""
        name = _name_of(request.headers.get("Host", ""))
        if name not in self._hosts:
            raise RefusalError(
                421,
                "misdirected",
                f'this console is not known as "{name[:100]}"; allow the name with --host, or ask '
                f"for one of {', '.join(sorted(self._hosts))}",
            )

    async def caller(self, request: web.Request) -> Caller:
        """Who asks. Raises ``RefusalError`` for a token that is not believed."""
        session = request.cookies.get(COOKIE, "")
        if not session.isascii():
            session = ""  # none of ours
        if (header := request.headers.get("Authorization")) is not None:
            principal = await self.bearer(header, request.remote or "")
            return Caller(principal, rights_of(principal, self._access), False, session)
        found = self._of_session(session) or self._of_certificate(request)
        if found is None and self._access.open:
            found = ANYBODY
        return Caller(found, rights_of(found, self._access), True, session)

    async def bearer(self, header: str, address: str) -> Principal:
        """Who shows this ``Authorization``. Raises ``RefusalError``."""
        try:
            claims = await self._verified(header)
        except UncheckedError as error:
            raise RefusalError(
                503, "unchecked", str(error), headers={"Retry-After": str(round(FETCH_AGAIN_S))}
            ) from error
        except TokenError as error:
            self._failures.count(address)
            raise unauthenticated(str(error)) from error
        names = {f"sub:{claims.subject}"}
        if claims.user:
            names.add(f"user:{claims.user}")
        names |= {f"group:{group}" for group in claims.groups}
        return Principal(
            claims.user or claims.subject, Via.BEARER, frozenset(names), claims.expires_at
        )

    async def _verified(self, header: str) -> Claims:
        if self._verifier is None:
            raise TokenError("this console takes no bearer tokens (it has no --oidc-issuer)")
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise TokenError("expected `Authorization: Bearer TOKEN`")
        return await self._verifier.verify(token.strip())

    def holds(self, caller: Caller) -> bool:
        """Whether ``caller`` is still who he said: not signed out, and his word has not ended."""
        principal = caller.principal
        if principal is None:
            return False
        if caller.ambient and principal.via is Via.BEARER:
            return self._of_session(caller.session) is principal
        return principal.expires_at is None or self._clock.now() < principal.expires_at

    def new_session(self) -> str:
        """A session of somebody who has not signed in; nothing is kept of it."""
        return secrets.token_urlsafe(32)

    def sign_in(self, principal: Principal) -> str:
        """A new session of ``principal``; with too many the oldest ends."""
        session = self.new_session()
        self._sessions[session] = principal
        while len(self._sessions) > SESSIONS_MAX:
            self._sessions.popitem(last=False)
        return session

    def sign_out(self, session: str) -> None:
        """End a session."""
        self._sessions.pop(session, None)

    def csrf(self, session: str) -> str:
        """The token that a page of ``session`` shows with what it changes."""
        return hmac.new(self._secret, session.encode(), hashlib.sha256).hexdigest()

    def check_forgery(self, request: web.Request, caller: Caller) -> None:
        """Refuse what another site's page made a browser send."""
        origin = request.headers.get("Origin")
        scheme = "https" if self._settings.secure else "http"
        ours = f"{scheme}://{request.headers.get('Host', '')}"
        if origin is not None and origin.lower() != ours.lower():
            raise _forged(f"the request comes from a page of {origin[:100]}, not of {ours}")
        if not caller.ambient:
            return
        if origin is None:
            raise _forged("the request says no Origin, as browsers do; send a bearer token instead")
        shown = request.headers.get(CSRF_HEADER, "")
        if not caller.session or not hmac.compare_digest(
            shown.encode(errors="replace"), self.csrf(caller.session).encode()
        ):
            raise _forged(f"{CSRF_HEADER} is not this session's; GET /api/session gives it")

    def cookie(self) -> dict[str, Any]:
        """How the session's cookie is set."""
        return {
            "httponly": True,
            "samesite": "Strict",
            "secure": self._settings.secure,
            "path": "/",
        }

    def _of_session(self, session: str) -> Principal | None:
        principal = self._sessions.get(session)
        if principal is None:
            return None
        if principal.expires_at is not None and principal.expires_at <= self._clock.now():
            del self._sessions[session]
            return None
        return principal

    def _of_certificate(self, request: web.Request) -> Principal | None:
        if not self._access.certificates or request.transport is None:
            return None
        shown = request.transport.get_extra_info("peercert")
        return principal_of_certificate(shown) if shown else None


def principal_of_certificate(shown: dict[str, Any]) -> Principal:
    """Whom a verified certificate names, as ``ssl`` describes it."""
    common = [
        value for part in shown.get("subject", ()) for key, value in part if key == "commonName"
    ]
    ids = [
        value
        for kind, value in shown.get("subjectAltName", ())
        if kind == "URI" and value.startswith("spiffe://")
    ]
    names = frozenset([*(f"cn:{name}" for name in common), *ids])
    user = next(iter([*ids, *common]), "a certificate without a name")
    return Principal(user, Via.CERTIFICATE, names)


def unauthenticated(message: str) -> RefusalError:
    """Somebody who has to say who he is."""
    return RefusalError(401, "unauthenticated", message, headers={"WWW-Authenticate": "Bearer"})


def _forged(message: str) -> RefusalError:
    return RefusalError(403, "csrf", message)


def _name_of(host: str) -> str:
    """The name in a ``Host`` header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
