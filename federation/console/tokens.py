"""Bearer tokens: JSON Web Tokens of an OIDC issuer (RFC 7519, RFC 9068), checked against its keys.

Decides: what is believed: signature by a key of the issuer, issuer, audience, expiry; which
algorithms; when keys are fetched anew.
Leaves to others: what the holder may do (``rights``), the cryptography (PyJWT).
Invariants: no token is written to a log or an answer; only asymmetric algorithms, so that a public
key is never taken for a shared secret; keys are fetched at most once in ``FETCH_AGAIN_S`` however
many tokens name unknown ones, and for all who wait: who goes away stops nobody's fetch.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from aiohttp import ClientError, ClientSession, ClientTimeout

from federation.aio import cancel_and_wait
from federation.console.settings import Oidc

ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
LEEWAY_S = 30
"""How far the issuer's clock may be off ours."""
FETCH_AGAIN_S = 10.0
KEYS_LIVE_S = 3600.0
FETCH_TIMEOUT_S = 5.0
BYTES_MAX = 1024 * 1024
TOKEN_BYTES_MAX = 8 * 1024
GROUPS_MAX = 1_000
_NO_TOKEN = (jwt.PyJWTError, ValueError, RecursionError)
"""What reading a stranger's text as a token raises: of bytes that are no text, of deep nesting."""


class TokenError(Exception):
    """A token that is not believed; the message is for its holder."""


class UncheckedError(TokenError):
    """A token that cannot be checked now, which is not its holder's failure."""


@dataclass(frozen=True, slots=True)
class Claims:
    """Who holds a token: ``user`` is his name (empty: none that is believed);
    ``expires_at`` in Unix seconds."""

    subject: str
    user: str
    groups: tuple[str, ...]
    expires_at: float


class TokenVerifier:
    """Checks tokens of one issuer."""

    def __init__(self, oidc: Oidc, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._oidc = oidc
        self._monotonic = monotonic
        self._keys: jwt.PyJWKSet | None = None
        self._fetched_at = float("-inf")
        self._tried_at = float("-inf")
        self._why = ""
        self._fetching: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"TokenVerifier({self._oidc.issuer})"

    async def close(self) -> None:
        """Fetch nothing any more."""
        if self._fetching is not None:
            await cancel_and_wait(self._fetching)

    async def verify(self, token: str) -> Claims:
        """Who holds ``token``. Raises ``TokenError``."""
        if len(token) > TOKEN_BYTES_MAX:
            raise TokenError(f"the token is longer than {TOKEN_BYTES_MAX} bytes")
        try:
            header = jwt.get_unverified_header(token)
        except _NO_TOKEN as error:
            raise TokenError("the bearer token is not a JSON Web Token") from error
        algorithm = header.get("alg")
        if algorithm not in ALGORITHMS:
            raise TokenError(f"the token's algorithm is none of {', '.join(ALGORITHMS)}")
        key = await self._key(header.get("kid"))
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._oidc.audience,
                issuer=self._oidc.issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except _NO_TOKEN as error:
            raise TokenError(self._sentence(error)) from error
        return self._claims(claims)

    def _claims(self, claims: dict[str, Any]) -> Claims:
        groups = claims.get(self._oidc.groups_claim, ())
        if isinstance(groups, str):
            groups = [groups]
        known = groups if isinstance(groups, list | tuple) else ()
        subject = str(claims["sub"])
        user = str(claims.get(self._oidc.user_claim) or "")
        is_email = self._oidc.user_claim == "email" or "@" in user
        if is_email and claims.get("email_verified") is not True:
            user = ""  # whoever made the account may have written it there
        return Claims(
            subject=subject,
            user=user,
            groups=tuple(str(entry) for entry in known[:GROUPS_MAX]),
            expires_at=float(claims["exp"]),
        )

    def _sentence(self, error: Exception) -> str:
        oidc = self._oidc
        match error:
            case jwt.ExpiredSignatureError():
                return f"the token has expired; get a new one from {oidc.issuer}"
            case jwt.ImmatureSignatureError() | jwt.InvalidIssuedAtError():
                return "the token is not valid yet; are the clocks right?"
            case jwt.InvalidAudienceError():
                return f'the token is not for this console: its audience is not "{oidc.audience}"'
            case jwt.InvalidIssuerError():
                return f"the token is not of the issuer {oidc.issuer}"
            case jwt.MissingRequiredClaimError():
                return f"the token has no claim {error.claim}"
            case _:
                return f"the token's signature is not one of {oidc.issuer}"

    async def _key(self, key_id: object) -> jwt.PyJWK:
        found = self._among(key_id)
        if found is None or self._monotonic() - self._fetched_at > KEYS_LIVE_S:
            await self._renew()
            found = self._among(key_id)
        if self._keys is None:
            raise UncheckedError(
                "tokens cannot be checked now: reading the keys of "
                f"{self._oidc.issuer}: {self._why}"
            )
        if found is None:
            raise TokenError(f"the token is signed with a key that {self._oidc.issuer} has not")
        return found

    def _among(self, key_id: object) -> jwt.PyJWK | None:
        keys = self._keys.keys if self._keys is not None else []
        if key_id is None:
            return keys[0] if len(keys) == 1 else None
        return next((key for key in keys if key.key_id == key_id), None)

    async def _renew(self) -> None:
        """Fetch the keys, unless that was tried just now; keys that were fetched stay."""
        if self._fetching is None or self._fetching.done():
            if self._monotonic() - self._tried_at < FETCH_AGAIN_S:
                return
            self._tried_at = self._monotonic()
            self._fetching = asyncio.create_task(self._take(), name="keys of the issuer")
        await asyncio.shield(self._fetching)

    async def _take(self) -> None:
        try:
            self._keys = jwt.PyJWKSet.from_dict(await self._fetch())
            self._fetched_at = self._monotonic()
        except (OSError, ClientError, TimeoutError, *_NO_TOKEN) as error:
            self._why = str(error) or type(error).__name__

    async def _fetch(self) -> dict[str, Any]:
        keys = self._oidc.keys
        if keys is not None and "://" not in keys:
            return _document(await asyncio.to_thread(Path(keys).read_bytes))
        timeout = ClientTimeout(total=FETCH_TIMEOUT_S)
        async with ClientSession(timeout=timeout) as session:
            if keys is None:
                issuer = self._oidc.issuer.rstrip("/")
                about = await _get(session, f"{issuer}/.well-known/openid-configuration")
                keys = checked_url(str(about.get("jwks_uri", "")))
            return await _get(session, keys)


def checked_url(url: str) -> str:
    """``url`` if keys may come from it. Raises ``ValueError``."""
    host = url.split("://", 1)[-1].split("/", 1)[0]
    name = host.rpartition(":")[0] or host
    local = name in ("localhost", "127.0.0.1", "[::1]")
    if not (url.startswith("https://") or (local and url.startswith("http://"))):
        raise ValueError(f"{url or 'nothing'} is not an https:// address")
    return url


async def _get(session: ClientSession, url: str) -> dict[str, Any]:
    async with session.get(checked_url(url), allow_redirects=False) as answer:
        if answer.status != 200:
            raise ValueError(f"{url} answered {answer.status}")
        body = b""
        async for part in answer.content.iter_chunked(64 * 1024):
            body += part
            if len(body) > BYTES_MAX:
                raise ValueError(f"{url} answered more than {BYTES_MAX} bytes")
        return _document(body)


def _document(body: bytes) -> dict[str, Any]:
    found = json.loads(body)
    if not isinstance(found, dict):
        raise ValueError("expected a JSON object")  # noqa: TRY004 - one error of what is read
    return found
