"""Who may look and who may change something: each rule of the console's door, refused in words."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import ClientError, web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from typer.testing import CliRunner

from federation.aio import cancel_and_wait
from federation.cli.lab.authority import Authority, write_private
from federation.cli.main import app
from federation.console import Access, ConsoleSettings, Limits, Oidc, TlsFiles
from federation.console.tokens import TokenVerifier
from tests.testkit.console import page, running_console, settings
from tests.testkit.etcd import EtcdServer

ISSUER, AUDIENCE = "https://login.example.com", "federation-console"
DRAIN = {"target": "a", "confirm": "a"}
_numbers = itertools.count()


class Issuer:
    """An OIDC issuer's key, with its public part in a file."""

    def __init__(self, folder: Path) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self._key.public_key()))
        self.keys = folder / "jwks.json"
        self.keys.write_text(json.dumps({"keys": [public | {"kid": "one", "alg": "ES256"}]}))
        self.public_pem = self._key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def token(self, *, key: Any = None, algorithm: str = "ES256", **changes: Any) -> str:
        """A token of alice's, of group platform, with ``changes``; ``None`` leaves a claim out."""
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "alice",
            "email": "alice@example.com",
            "email_verified": True,
            "groups": ["platform"],
            "exp": time.time() + 300,
        }
        claims = {name: it for name, it in (claims | changes).items() if it is not None}
        return jwt.encode(claims, key or self._key, algorithm, headers={"kid": "one"})


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path)


def guarded(issuer: Issuer, **changes: Any) -> ConsoleSettings:
    access = Access(
        oidc=Oidc(ISSUER, AUDIENCE, str(issuer.keys)),
        readers=("group:platform",),
        writers=("user:alice@example.com",),
    )
    return settings(access=access, **changes)


def serve(etcd: EtcdServer, used: ConsoleSettings) -> Any:
    return running_console(etcd.endpoint, f"/door-{next(_numbers)}/", used)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def test_without_a_word_nothing_is_told(etcd_server: EtcdServer, issuer: Issuer) -> None:
    async with serve(etcd_server, guarded(issuer)) as base, page(base) as it:
        about = await it.open()
        assert about.json["rights"] == {"read": False, "write": False}
        assert about.json["signIn"] == {"bearer": True, "certificate": False}
        for path in ("/api/overview", "/api/events", "/api/services", "/api/timeline"):
            answer = await it.get(path)
            assert answer.status == 401, path
            assert f"a bearer token of {ISSUER}" in answer.error
        assert (await it.send("POST", "/api/drains", DRAIN)).status == 401


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"exp": 1}, "the token has expired"),
        ({"exp": None}, "has no claim exp"),
        ({"sub": None}, "has no claim sub"),
        ({"aud": "another"}, f'its audience is not "{AUDIENCE}"'),
        ({"iss": "https://evil.example.com"}, f"not of the issuer {ISSUER}"),
        ({"nbf": 9_999_999_999}, "not valid yet"),
        ({"key": ec.generate_private_key(ec.SECP256R1())}, "signature is not one of"),
        ({"key": "k" * 64, "algorithm": "HS256"}, "the token's algorithm is none of"),
    ],
)
async def test_a_wrong_token_is_refused(
    etcd_server: EtcdServer, issuer: Issuer, changes: Mapping[str, Any], says: str
) -> None:
    async with serve(etcd_server, guarded(issuer)) as base, page(base) as it:
        token = issuer.token(**changes)
        answer = await it.get("/api/overview", headers=bearer(token))
        assert answer.status == 401
        assert says in answer.error
        assert token not in answer.error
        signed = await it.send("POST", "/api/session", {}, headers=bearer(token))
        assert signed.status == 401


async def test_an_unsigned_token_is_refused(etcd_server: EtcdServer, issuer: Issuer) -> None:
    token = jwt.encode({"sub": "alice"}, None, "none")
    async with serve(etcd_server, guarded(issuer)) as base, page(base) as it:
        for wrong in (token, "nonsense", "a.b.c"):
            assert (await it.get("/api/services", headers=bearer(wrong))).status == 401


async def test_what_is_no_text_or_too_deep_is_refused_in_our_form(
    etcd_server: EtcdServer, issuer: Issuer
) -> None:
    deep = b"[" * 16_000
    nested = base64.urlsafe_b64encode(b"[" * 5_000).decode().rstrip("=")
    async with serve(etcd_server, guarded(issuer)) as base, page(base) as it:
        for token in ("\udcff.b.c", f"{nested}.b.c"):
            answer = await it.get("/api/overview", headers=bearer(token))
            assert (answer.status, answer.json["error"]["code"]) == (401, "unauthenticated")
        cookie = {"Cookie": "federation_console=\udcff"}
        assert (await it.get("/api/session", headers=cookie)).status == 200
        url, good = f"{base}/api/session", bearer(issuer.token())
        async with it.session.post(url, data=deep, headers=good) as response:
            assert response.status == 400
            assert "not valid JSON" in (await response.json())["error"]["message"]
        async with it.session.post(url, data=deep, headers=bearer("x")) as response:
            assert response.status == 401, "nobody's body is read"
        await it.open()
        signed = await it.send("POST", "/api/session", {}, headers=good)
        assert signed.status == 200
        await it.until("/api/exports", lambda found: found["total"] == 0)
        for number in ("000000000001000000", "9" * 5_000, "0", "201"):
            assert (await it.get(f"/api/exports?per={number}")).status == 400


async def test_a_session_lasts_as_long_as_its_token(
    etcd_server: EtcdServer, issuer: Issuer
) -> None:
    async with serve(etcd_server, guarded(issuer)) as base, page(base) as it:
        before = (await it.open()).json["csrf"]
        signed = await it.send("POST", "/api/session", {}, headers=bearer(issuer.token()))
        assert (signed.status, signed.json["user"]) == (200, "alice@example.com")
        assert signed.json["rights"] == {"read": True, "write": True}
        assert signed.json["csrf"] != before, "who signs in gets another session"
        cookie = signed.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert (await it.get("/api/session")).json["via"] == "bearer"
        it.csrf = signed.json["csrf"]
        assert (await it.send("DELETE", "/api/session")).status == 204
        assert (await it.get("/api/overview")).status == 401
        # Leeway of the clocks is 30 s; a session ends when its token says so.
        short = issuer.token(exp=time.time() - 5)
        await it.send("POST", "/api/session", {}, headers=bearer(short))
        assert (await it.get("/api/overview")).status == 401


async def test_who_may_look_may_not_change(etcd_server: EtcdServer, issuer: Issuer) -> None:
    bob = issuer.token(sub="bob", email="bob@example.com")
    eve = issuer.token(sub="eve", email="eve@example.com", groups=["others"])
    forged = [
        issuer.token(sub="mallory", email_verified=False),
        issuer.token(sub="mallory", email_verified=None),
        issuer.token(sub="alice@example.com", email=None),
    ]
    async with serve(etcd_server, guarded(issuer)) as base, page(base) as it:
        assert (await it.get("/api/timeline", headers=bearer(bob))).status == 200
        for token in (bob, *forged):
            refused = await it.send("POST", "/api/drains", DRAIN, headers=bearer(token))
            assert refused.status == 403
            assert "no --writer of the console names him" in refused.error
        assert (await it.get("/api/timeline", headers=bearer(eve))).status == 403
        allowed = await it.send("POST", "/api/drains", DRAIN, headers=bearer(issuer.token()))
        assert allowed.status == 404, "the drain was looked at: there is no such region"


async def test_other_sites_pages_change_nothing(etcd_server: EtcdServer) -> None:
    async with serve(etcd_server, settings()) as base, page(base) as it:
        await it.open()
        assert (await it.send("POST", "/api/drains", DRAIN)).status == 404
        for headers, says in (
            ({"X-CSRF-Token": None}, "X-CSRF-Token is not this session's"),
            ({"X-CSRF-Token": "0" * 64}, "X-CSRF-Token is not this session's"),
            ({"Origin": None}, "says no Origin"),
            ({"Origin": "https://evil.example.com"}, "a page of https://evil.example.com"),
            ({"Origin": "null"}, "a page of null"),
        ):
            for method, path in (("POST", "/api/drains"), ("DELETE", "/api/drains/a")):
                answer = await it.send(method, path, DRAIN, headers=headers)
                assert answer.status == 403, (headers, path)
                assert says in answer.error
        it.session.cookie_jar.clear()
        assert (await it.send("POST", "/api/drains", DRAIN)).status == 403


async def test_a_rebound_name_is_refused(etcd_server: EtcdServer) -> None:
    used = settings(hosts=("console.example.com",))
    async with serve(etcd_server, used) as base, page(base) as it:
        for path in ("/", "/api/session", "/api/overview"):
            answer = await it.get(path, headers={"Host": f"evil.example.com:{used.port}"})
            assert answer.status == 421
            assert "allow the name with --host" in answer.error
        for name in ("localhost", "console.example.com", "CONSOLE.example.com:443"):
            assert (await it.get("/api/session", headers={"Host": name})).status == 200


async def test_every_answer_keeps_the_browser_strict(etcd_server: EtcdServer) -> None:
    async with serve(etcd_server, settings()) as base, page(base) as it:
        for path in ("/", "/services/app/users", "/api/session", "/api/nothing", "/no.js"):
            headers = (await it.get(path)).headers
            policy = headers["Content-Security-Policy"]
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert "script-src 'self'" in policy
            assert headers["X-Content-Type-Options"] == "nosniff"
        index = (await it.get("/")).json
        assert "<script>" not in index
        assert " style=" not in index
        assert (await it.get("/api/nothing")).status == 404
        assert (await it.get("/../settings.py")).status != 200


async def test_who_goes_away_stops_nobodys_fetch_of_keys(tmp_path: Path) -> None:
    issuer, asked, go = Issuer(tmp_path), asyncio.Event(), asyncio.Event()

    async def keys(_request: web.Request) -> web.Response:
        asked.set()
        await go.wait()
        return web.json_response(json.loads(issuer.keys.read_text()))

    application = web.Application()
    application.router.add_get("/keys", keys)
    async with TestServer(application) as server:
        verifier = TokenVerifier(Oidc(ISSUER, AUDIENCE, str(server.make_url("/keys"))))
        first = asyncio.create_task(verifier.verify(issuer.token()))
        await asked.wait()
        await cancel_and_wait(first)
        go.set()
        assert (await verifier.verify(issuer.token())).subject == "alice"
        await verifier.close()


async def test_nobody_fails_by_keys_that_cannot_be_read(
    etcd_server: EtcdServer, issuer: Issuer
) -> None:
    issuer.keys.write_text("nothing")
    used = guarded(issuer, limits=Limits(failures=1))
    async with serve(etcd_server, used) as base, page(base) as it:
        for _ in range(3):
            answer = await it.get("/api/overview", headers=bearer(issuer.token()))
            assert answer.status == 503
            assert "tokens cannot be checked now" in answer.error


async def test_subjects_are_granted_by_a_name_of_their_own(
    etcd_server: EtcdServer, issuer: Issuer
) -> None:
    access = Access(oidc=Oidc(ISSUER, AUDIENCE, str(issuer.keys)), readers=("sub:alice",))
    async with serve(etcd_server, settings(access=access)) as base, page(base) as it:
        mine = issuer.token(email=None)
        assert (await it.get("/api/timeline", headers=bearer(mine))).status == 200
        named = issuer.token(sub="eve", email="alice")
        assert (await it.get("/api/timeline", headers=bearer(named))).status == 403


async def test_streams_end_with_their_session_and_are_few_for_each(
    etcd_server: EtcdServer, issuer: Issuer
) -> None:
    used = guarded(issuer, limits=Limits(tick_s=0.1, beat_s=0.2, clients_each=1))
    async with serve(etcd_server, used) as base, page(base) as it:
        signed = await it.send("POST", "/api/session", {}, headers=bearer(issuer.token()))
        it.csrf = signed.json["csrf"]
        async with it.session.get(f"{base}/api/events") as stream:
            assert stream.status == 200
            refused = await it.get("/api/events")
            assert (refused.status, refused.json["error"]["code"]) == (503, "busy")
            bob = bearer(issuer.token(sub="bob", email="bob@example.com"))
            async with it.session.get(f"{base}/api/events", headers=bob) as other:
                assert other.status == 200
            assert (await it.send("DELETE", "/api/session")).status == 204
            async with asyncio.timeout(10):
                assert b"your sign-in has ended" in await stream.read()


async def test_large_bodies_and_many_failures_are_refused(
    etcd_server: EtcdServer, issuer: Issuer
) -> None:
    used = guarded(issuer, limits=Limits(failures=3))
    async with serve(etcd_server, used) as base, page(base) as it:
        await it.open()
        large = {"target": "x" * 20_000}
        answer = await it.send("POST", "/api/drains", large, headers=bearer(issuer.token()))
        assert (answer.status, answer.json["error"]["code"]) == (413, "too_large")
        wrong = [(await it.get("/api/overview", headers=bearer("x"))).status for _ in range(5)]
        assert wrong == [401, 401, 401, 429, 429]
        late = await it.get("/api/overview", headers=bearer("x"))
        assert int(late.headers["Retry-After"]) >= 1
        good = await it.get("/api/timeline", headers=bearer(issuer.token()))
        assert good.status == 200, "who has a good token is not shut out by others' failures"


async def test_clients_certificates_have_rights_by_name(
    etcd_server: EtcdServer, tmp_path: Path
) -> None:
    ours, theirs = Authority("ours"), Authority("theirs")
    server = ours.issue("console", dns=("localhost",), addresses=("127.0.0.1",))
    files = {"ca.pem": ours.certificate_pem, "tls.pem": server.certificate_pem}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    write_private(tmp_path / "tls.key", server.key_pem)

    def client(authority: Authority, name: str, *uris: str) -> ssl.SSLContext:
        pair = authority.issue(name, uris=uris)
        (tmp_path / f"{name}.pem").write_bytes(pair.certificate_pem)
        write_private(tmp_path / f"{name}.key", pair.key_pem)
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        context.load_cert_chain(tmp_path / f"{name}.pem", tmp_path / f"{name}.key")
        return context

    tls = TlsFiles(tmp_path / "tls.pem", tmp_path / "tls.key", tmp_path / "ca.pem")
    access = Access(
        certificates=True, readers=("cn:reader",), writers=("spiffe://example.org/operators/*",)
    )
    used = settings(access=access, tls=tls, secure=True)
    operator = client(ours, "operator", "spiffe://example.org/operators/ann")
    async with serve(etcd_server, used) as base:
        async with page(base, tls=operator) as it:
            about = await it.open()
            assert about.json["user"] == "spiffe://example.org/operators/ann"
            assert about.json["rights"] == {"read": True, "write": True}
            assert "Secure" in about.headers["Set-Cookie"]
            assert (await it.send("POST", "/api/drains", DRAIN)).status == 404
            stolen = await it.send("POST", "/api/drains", DRAIN, headers={"X-CSRF-Token": None})
            assert stolen.status == 403, "a browser shows certificates by itself"
        async with page(base, tls=client(ours, "reader")) as it:
            assert (await it.open()).json["rights"] == {"read": True, "write": False}
        async with page(base, tls=client(ours, "nobody")) as it:
            assert (await it.get("/api/timeline")).status == 403
        bare = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        async with page(base, tls=bare) as it:
            assert "a client certificate" in (await it.get("/api/timeline")).error
        async with page(base, tls=client(theirs, "operator2")) as it:
            with pytest.raises((OSError, ClientError)):  # who notices first differs
                await it.get("/api/timeline")


async def test_a_renewed_certificate_is_shown_without_a_restart(
    etcd_server: EtcdServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("federation.console.server.TLS_LOOK_S", 0.05)
    authority = Authority("ours")
    tls = TlsFiles(tmp_path / "tls.pem", tmp_path / "tls.key")

    def issue() -> str:
        pair = authority.issue("console", dns=("localhost",), addresses=("127.0.0.1",))
        # The key first: what stands there in between does not fit and must not be taken.
        write_private(tls.private_key, pair.key_pem)
        tls.certificate.write_bytes(pair.certificate_pem)
        return pair.certificate_pem.decode()

    def shown() -> str:
        return ssl.get_server_certificate((used.host, used.port))

    first = issue()
    used = settings(tls=tls, secure=True)
    async with serve(etcd_server, used) as base, asyncio.timeout(20):
        assert await asyncio.to_thread(shown) == first
        tls.certificate.write_text("half written")
        trust = ssl.create_default_context(cadata=authority.certificate_pem.decode())
        async with page(base, tls=trust) as it:
            assert (await it.open()).status == 200
        second = issue()
        while (now := await asyncio.to_thread(shown)) != second:
            assert now == first
        async with page(base, tls=trust) as it:
            assert (await it.open()).status == 200


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--listen", "0.0.0.0:1"), "is not loopback"),
        (("--listen", "0.0.0.0:1", "--behind-tls-proxy"), "nobody is asked who he is"),
        (("--behind-tls-proxy",), "nobody is asked who he is"),
        (("--client-ca", "x.pem"), "need the console's own TLS"),
        (("--tls-cert", "x.pem"), "go together"),
        (("--oidc-issuer", "https://x"), "go together"),
        (("--reader", "group:x"), "grants need people who say who they are"),
        (("--oidc-issuer", "https://x", "--oidc-audience", "y"), "nobody could read"),
        (("--reader", "anna"), "is none of"),
        (
            ("--oidc-issuer", "https://x", "--oidc-audience", "y", "--reader", "*", "--write"),
            "name people with --writer",
        ),
    ],
)
def test_what_would_be_open_to_others_does_not_start(options: tuple[str, ...], says: str) -> None:
    found = CliRunner().invoke(app, ["console", *options], env={"COLUMNS": "400"})
    assert found.exit_code == 2
    assert says in " ".join(found.output.replace("│", " ").split())
