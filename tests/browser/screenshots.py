"""``python -m tests.browser.screenshots``: renew the pictures of the console in ``docs/images``.

A lab with calls and a drain under way is shown, so that there is something to see. Runs some
minutes; the pictures are small enough to be committed.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import CALLS_PER_S, EAST, EXAMPLE, WEST
from tests.browser.pages import PATHS, drain_panel, preview_drain
from tests.testkit.browser import PATIENCE_MS, running_browser, visiting
from tests.testkit.lab import Lab

IMAGES = Path(__file__).parents[2] / "docs" / "images"
METHOD = "com.example.api.UserService/GetUser"
DARK = ("map", "services", "drains")
PHONE = ("map", "drains")


def show_drains(page: Page) -> None:
    expect(drain_panel(page, EAST)).to_be_visible()
    preview_drain(page, EAST, over="1m", grace="30s")
    expect(page.get_by_role("table", name="What would move")).to_be_visible()


def show_routes(page: Page) -> None:
    page.get_by_label("From cluster").select_option(WEST)
    page.get_by_label("gRPC method or path").fill(METHOD)
    page.get_by_role("button", name="Test").click()
    expect(page.get_by_role("table", name="Destinations")).to_be_visible()


PREPARED: dict[str, Callable[[Page], None]] = {"drains": show_drains, "routes": show_routes}


def picture(
    browser: Browser, base: str, name: str, *, scheme: str = "light", phone: bool = False
) -> None:
    with visiting(browser, base, scheme=scheme, phone=phone) as visit:
        page = visit.open(PATHS[name])
        expect(page.get_by_text("Reading …")).to_have_count(0)
        PREPARED.get(name, lambda _: None)(page)
        page.evaluate("document.activeElement?.blur()")
        kind = "-phone" if phone else "-dark" if scheme == "dark" else ""
        page.screenshot(path=IMAGES / f"console-{name}{kind}.png", full_page=name != "timeline")
        print(f"docs/images/console-{name}{kind}.png")


def main() -> None:
    """Start a lab, drain a region, take the pictures."""
    expect.set_options(timeout=PATIENCE_MS)
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory, running_browser() as browser:
        lab = Lab(Path(directory) / "lab")
        lab.fedctl("lab", "up", "--detach", "--rate", str(CALLS_PER_S), timeout_s=180)
        try:
            lab.fedctl("apply", "-f", str(EXAMPLE))
            lab.fedctl("drain", EAST, "--over", "3m", "--grace", "30s")
            base = str(lab.first_status["console"]).rstrip("/")
            with visiting(browser, base) as visit:
                ramp = drain_panel(visit.open("/drains"), EAST).get_by_role("progressbar")
                a_fifth = re.compile(r"^[2-9]\d$")
                expect(ramp).to_have_attribute("aria-valuenow", a_fifth, timeout=90_000)
            for name in PATHS:
                picture(browser, base, name)
            for name in DARK:
                picture(browser, base, name, scheme="dark")
            for name in PHONE:
                picture(browser, base, name, phone=True)
        finally:
            lab.fedctl("lab", "down")


if __name__ == "__main__":
    main()
