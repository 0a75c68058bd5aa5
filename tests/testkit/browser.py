"""A real browser for tests of the console: Debian's chromium, driven by Playwright.

Playwright's own browsers are not downloaded. Where there is no chromium, tests are skipped with the
line ``HINT``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

HINT = "no chromium: install it (Debian: apt-get install chromium) or name one in CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
PATIENCE_MS = 30_000
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 800}


def chromium() -> str | None:
    """Where a chromium is; ``None``: nowhere."""
    named = os.environ.get("CHROMIUM")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def running_browser() -> Iterator[Browser]:
    """A browser without windows. Raises ``RuntimeError`` where none is installed."""
    path = chromium()
    if path is None:
        raise RuntimeError(HINT)
    # Its sandbox does not start for root, and containers lack the shared memory it asks for.
    flags = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=flags)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """A page of a console and what the browser complained of: scripts that failed, and what the
    Content-Security-Policy stopped."""

    page: Page
    base: str
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str = "/") -> Page:
        """Go to ``path`` and wait until the page shows live state."""
        self.page.goto(self.base + path)
        self.page.locator("#connection").get_by_text("Live", exact=True).wait_for()
        return self.page


@contextlib.contextmanager
def visiting(
    browser: Browser, base: str, *, scheme: str = "light", phone: bool = False
) -> Iterator[Visit]:
    """A fresh context (no cookies, nothing stored) with one page of the console at ``base``."""
    context: BrowserContext = browser.new_context(
        color_scheme="dark" if scheme == "dark" else "light",
        viewport=PHONE if phone else DESKTOP,
        has_touch=phone,
        reduced_motion="reduce",
    )
    context.set_default_timeout(PATIENCE_MS)
    visit = Visit(context.new_page(), base)
    visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    visit.page.on(
        "console",
        lambda said: visit.complaints.append(said.text) if is_complaint(said.text) else None,
    )
    try:
        yield visit
    finally:
        context.close()


def is_complaint(text: str) -> bool:
    """Whether a line of the browser's console tells of a fault of the page."""
    return "Content Security Policy" in text or "Refused to" in text
