"""Keys of an issuer over HTTP: found by discovery, rotated, away, and as large as they please."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import ec

from federation.console import Oidc
from federation.console.tokens import (
    BYTES_MAX,
    FETCH_AGAIN_S,
    KEYS_LIVE_S,
    TokenError,
    TokenVerifier,
    UncheckedError,
)

AUDIENCE = "federation-console"


class Issuer:
    """An issuer on loopback; ``now`` is the verifier's clock."""

    def __init__(self) -> None:
        self.keys: dict[str, ec.EllipticCurvePrivateKey] = {}
        self.fetched = 0
        self.failure: web.Response | None = None
        self.server: TestServer
        self.now = 1_000.0

    @property
    def url(self) -> str:
        return str(self.server.make_url("")).rstrip("/")

    def verifier(self) -> TokenVerifier:
        return TokenVerifier(Oidc(self.url, AUDIENCE), monotonic=lambda: self.now)

    def rotate(self, name: str) -> None:
        self.keys = {name: ec.generate_private_key(ec.SECP256R1())}

    def token(self, name: str) -> str:
        claims = {"iss": self.url, "aud": AUDIENCE, "sub": "alice", "exp": time.time() + 300}
        key = self.keys.get(name) or ec.generate_private_key(ec.SECP256R1())
        return jwt.encode(claims, key, "ES256", headers={"kid": name})

    async def about(self, _: web.Request) -> web.Response:
        return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/keys"})

    async def jwks(self, _: web.Request) -> web.Response:
        self.fetched += 1
        if self.failure is not None:
            return self.failure
        return web.json_response({"keys": [self._public(name) for name in self.keys]})

    def _public(self, name: str) -> dict[str, Any]:
        found = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.keys[name].public_key()))
        return {**found, "kid": name, "alg": "ES256"}


@pytest_asyncio.fixture
async def issuer() -> AsyncIterator[Issuer]:
    found = Issuer()
    application = web.Application()
    application.router.add_get("/.well-known/openid-configuration", found.about)
    application.router.add_get("/keys", found.jwks)
    async with TestServer(application) as found.server:
        yield found


async def test_rotated_keys_are_fetched_when_a_token_names_one(issuer: Issuer) -> None:
    verifier = issuer.verifier()
    issuer.rotate("one")
    first = issuer.token("one")
    for _ in range(3):
        assert (await verifier.verify(first)).subject == "alice"
    assert issuer.fetched == 1
    issuer.rotate("two")
    issuer.now += FETCH_AGAIN_S
    assert (await verifier.verify(issuer.token("two"))).subject == "alice"
    with pytest.raises(TokenError, match=r"a key that .* has not"):
        await verifier.verify(first)
    assert issuer.fetched == 2


async def test_tokens_of_made_up_keys_ask_the_issuer_seldom(issuer: Issuer) -> None:
    verifier = issuer.verifier()
    issuer.rotate("one")
    for number in range(20):
        with pytest.raises(TokenError, match=r"a key that .* has not"):
            await verifier.verify(issuer.token(f"made-up-{number}"))
    assert issuer.fetched == 1
    assert (await verifier.verify(issuer.token("one"))).subject == "alice"


async def test_an_issuer_that_is_away_takes_no_key_back(issuer: Issuer) -> None:
    verifier = issuer.verifier()
    issuer.rotate("one")
    token = issuer.token("one")
    await verifier.verify(token)
    await issuer.server.close()
    issuer.now += KEYS_LIVE_S + 1
    assert (await verifier.verify(token)).subject == "alice"


@pytest.mark.parametrize(
    ("failure", "why"),
    [
        (web.Response(status=503), "answered 503"),
        (web.Response(status=302, headers={"Location": "/elsewhere"}), "answered 302"),
        (web.Response(body=b" " * (BYTES_MAX + 1)), f"more than {BYTES_MAX} bytes"),
        (web.Response(text="[]"), "a JSON object"),
    ],
)
async def test_what_is_no_set_of_keys_is_told_and_asked_for_again(
    issuer: Issuer, failure: web.Response, why: str
) -> None:
    verifier = issuer.verifier()
    issuer.rotate("one")
    issuer.failure = failure
    with pytest.raises(UncheckedError, match=why):
        await verifier.verify(issuer.token("one"))
    issuer.failure = None
    issuer.now += FETCH_AGAIN_S
    assert (await verifier.verify(issuer.token("one"))).subject == "alice"
