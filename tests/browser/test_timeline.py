"""The timeline: a drain's story, in order, each time it is drained."""

from __future__ import annotations

import os

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import EAST
from tests.browser.pages import cluster_state, row
from tests.testkit.browser import Visit
from tests.testkit.lab import Lab

CAPTION = "Decisions and changes"


def test_drains_of_one_region_are_told_apart_and_in_order(
    lab: Lab, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = visit.open()
    for operator in ("alice", "bob"):
        monkeypatch.setitem(os.environ, "LOGNAME", operator)
        lab.fedctl("drain", EAST, "--over", "2s", "--grace", "1s")
        expect(cluster_state(page, EAST)).to_contain_text("Drained")
        lab.fedctl("undrain", EAST)
        expect(cluster_state(page, EAST)).to_contain_text("Live")
        lab.wait(lambda: lab.federation()["drains"] == [], timeout_s=30, what="all is back")
    page = visit.open("/timeline?kind=drain")
    asked = row(page, CAPTION, "asked for")
    expect(asked.nth(0)).to_contain_text("bob")
    expect(asked.nth(1)).to_contain_text("alice")
    expect(asked.nth(0)).to_contain_text(f"Region {EAST}, over 2 s, grace 1 s")
    ends = row(page, CAPTION, f"drain {EAST} over")
    expect(ends.nth(1)).to_be_visible()
    expect(ends.first).to_contain_text("resolver-")
    rows = page.get_by_role("table", name=CAPTION).locator("tbody tr").all_inner_texts()
    second = rows[: next(n for n, text in enumerate(rows) if "bob" in text) + 1]
    places = [
        next(n for n, text in enumerate(second) if f"drain {EAST} {what}" in text)
        for what in ("over", "taken back", "Drained", "asked for")
    ]
    assert places == sorted(places), second
    page.set_viewport_size({"width": 1280, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    table = page.get_by_role("table", name=CAPTION)
    assert table.evaluate("e => e.scrollWidth <= e.parentElement.clientWidth")
