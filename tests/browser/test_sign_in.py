"""A console that wants tokens: who has none, a wrong one or one without the right sees why."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import EAST, running_console
from tests.browser.pages import preview_drain
from tests.testkit.browser import Visit, visiting
from tests.testkit.lab import Lab
from tests.testkit.ports import free_port

ISSUER, AUDIENCE = "https://issuer.example.com", "federation-console"


@dataclass
class Issuer:
    """An OIDC issuer, as far as a console knows one: its keys, in a file."""

    keys: Path

    def __post_init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self._key.public_key()))
        self.keys.write_text(json.dumps({"keys": [public | {"kid": "one", "alg": "ES256"}]}))

    def token(self, user: str, *, audience: str = AUDIENCE) -> str:
        claims = {
            "iss": ISSUER,
            "aud": audience,
            "sub": user,
            "email": user,
            "email_verified": True,
            "exp": int(time.time()) + 600,
        }
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": "one"})


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    return Issuer(tmp_path_factory.mktemp("issuer") / "keys.json")


@pytest.fixture(scope="module")
def guarded(
    started_lab: Lab, issuer: Issuer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A console that alice may write by and bob may look at."""
    log = tmp_path_factory.mktemp("guarded") / "console.log"
    options = (
        *("--oidc-issuer", ISSUER, "--oidc-audience", AUDIENCE, "--oidc-jwks", str(issuer.keys)),
        *("--writer", "user:alice@example.com", "--reader", "user:bob@example.com"),
    )
    with running_console(started_lab, log, *options) as address:
        yield address


@pytest.fixture
def visit(browser: Browser, guarded: str) -> Iterator[Visit]:
    with visiting(browser, guarded) as found:
        yield found
        assert found.complaints == []


def sign_in(page: Page, token: str) -> None:
    page.get_by_label("Bearer token").fill(token)
    page.get_by_role("button", name="Sign in").click()


def test_a_wrong_token_is_refused_with_the_reason(lab: Lab, visit: Visit, issuer: Issuer) -> None:
    page = visit.page
    page.goto(visit.base)
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    sign_in(page, "not-a-token")
    expect(page.get_by_role("alert")).to_contain_text("not a JSON Web Token")
    sign_in(page, issuer.token("alice@example.com", audience="another"))
    expect(page.get_by_role("alert")).to_contain_text("audience")
    sign_in(page, Issuer(issuer.keys.with_name("others.json")).token("alice@example.com"))
    expect(page.get_by_role("alert")).to_contain_text("signature")
    assert page.get_by_role("table").count() == 0


def test_a_token_opens_it_and_signing_out_closes_it(lab: Lab, visit: Visit, issuer: Issuer) -> None:
    page = visit.page
    page.goto(visit.base)
    sign_in(page, issuer.token("alice@example.com"))
    expect(page.get_by_role("table", name="Clusters")).to_be_visible()
    expect(page.locator("#session")).to_contain_text("alice@example.com")
    stored = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}])")
    assert stored == "[{},{}]"
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")


def test_who_may_only_look_is_told_so(lab: Lab, visit: Visit, issuer: Issuer) -> None:
    page = visit.page
    page.goto(f"{visit.base}/drains")
    sign_in(page, issuer.token("bob@example.com"))
    preview_drain(page, EAST, over="1s", grace="1s")
    expect(page.get_by_role("table", name="What would move")).to_be_visible()
    expect(page.get_by_text("bob@example.com has no right to do this")).to_be_visible()
    expect(page.get_by_role("button", name="Start drain")).to_have_count(0)


def test_a_console_that_ends_is_shown_as_lost_and_found_again(
    lab: Lab, browser: Browser, tmp_path: Path
) -> None:
    port = free_port()
    with contextlib.ExitStack() as held, contextlib.ExitStack() as serving:
        address = serving.enter_context(running_console(lab, tmp_path / "one.log", port=port))
        page = held.enter_context(visiting(browser, address)).open()
        serving.close()
        expect(page.locator("#connection")).to_have_text("Not connected")
        expect(page.locator("#banner")).to_contain_text("Showing state of")
        expect(page.get_by_role("table", name="Clusters")).to_be_visible()
        with running_console(lab, tmp_path / "two.log", port=port):
            expect(page.locator("#connection")).to_have_text("Live")
            expect(page.locator("#banner")).to_be_empty()
