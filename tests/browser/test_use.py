"""By keyboard alone, on a phone, in both themes, and without accessibility faults."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import EAST
from tests.browser.pages import PATHS, drain_panel, preview_drain
from tests.testkit.browser import Visit, visiting
from tests.testkit.lab import Lab

GRAVE = ("serious", "critical")
TABS_MAX = 60


def focused(page: Page) -> str:
    """What has the focus: its text or label."""
    return str(
        page.evaluate(
            "(() => { const e = document.activeElement;"
            " return (e.labels?.[0] ?? e).textContent.trim() })()"
        )
    )


def tab_to(page: Page, name: str) -> None:
    """Press Tab until ``name`` has the focus, and see that the focus shows."""
    seen = []
    for _ in range(TABS_MAX):
        page.keyboard.press("Tab")
        seen.append(focused(page))
        if seen[-1].startswith(name):
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
            return
    raise AssertionError(f"{name} is not reached by Tab: {seen}")


def test_everything_is_done_by_keyboard(lab: Lab, visit: Visit) -> None:
    page = visit.open()
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to content"
    for name, heading in (("Services", "Services"), ("Drains", "Drains")):
        page.reload()
        tab_to(page, name)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_have_text(heading)
        assert focused(page) == heading
    tab_to(page, "Region or cluster")
    page.keyboard.type(f"Region {EAST}")
    expect(page.get_by_label("Region or cluster")).to_have_value(EAST)
    tab_to(page, "Show what would move")
    page.keyboard.press("Enter")
    expect(page.get_by_role("table", name="What would move")).to_be_visible()
    tab_to(page, f"Type {EAST}")
    page.keyboard.type(EAST)
    expect(page.get_by_role("button", name="Start drain")).to_be_enabled()
    page.keyboard.press("Enter")
    panel = drain_panel(page, EAST)
    expect(panel).to_be_visible()
    # The stop button stands above the form, so it is reached backwards.
    stop = panel.get_by_role("button", name=f"Stop the drain of {EAST}")
    stop.focus()
    page.keyboard.press("Enter")
    expect(panel.get_by_text("Returning")).to_be_visible()


def test_the_focus_survives_updates(lab: Lab, visit: Visit) -> None:
    page = visit.open("/drains")
    ramp = page.get_by_role("textbox", name="Ramp")
    ramp.fill("45s")
    lab.fedctl("drain", EAST, "--over", "1m", "--grace", "1s")
    expect(drain_panel(page, EAST)).to_be_visible()
    expect(ramp).to_be_focused()
    expect(ramp).to_have_value("45s")


def test_a_phone_shows_everything_without_scrolling_sideways(phone: Visit) -> None:
    widths = {}
    for name, path in PATHS.items():
        page = phone.open(path)
        expect(page.get_by_text("Reading …")).to_have_count(0)
        wide, screen = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        if wide > screen:
            widths[name] = wide
    assert widths == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_grave_fault(browser: Browser, console: str, scheme: str) -> None:
    grave = []
    with visiting(browser, console, scheme=scheme) as visit:
        for name, path in PATHS.items():
            page = visit.open(path)
            expect(page.get_by_text("Reading …")).to_have_count(0)
            if name == "drains":
                preview_drain(page, EAST, over="1s", grace="1s")
                expect(page.get_by_role("table", name="What would move")).to_be_visible()
            grave += [
                (name, fault["id"], [node["html"] for node in fault["nodes"]])
                for fault in Axe().run(page).response["violations"]
                if fault["impact"] in GRAVE
            ]
    assert grave == []


def test_the_theme_is_the_systems_until_chosen(browser: Browser, console: str) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    with visiting(browser, console, scheme="dark") as visit:
        page = visit.open()
        dark = page.evaluate(ground)
        switch = page.get_by_role("button", name="Theme: auto")
        switch.click()
        expect(page.get_by_role("button", name="Theme: light")).to_be_visible()
        light = page.evaluate(ground)
        assert light != dark
        page.reload()
        assert page.evaluate(ground) == light
