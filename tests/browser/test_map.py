"""The map: live traffic between regions, a region that dies and comes back."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.conftest import EAST, WEST
from tests.browser.pages import cluster_state, row
from tests.testkit.browser import Visit
from tests.testkit.lab import Lab

POSITIVE = re.compile(r"^(?!0$)[\d.,]+$")


def test_it_shows_live_traffic_between_regions(lab: Lab, visit: Visit) -> None:
    page = visit.open()
    drawn = page.get_by_role("img", name="Map of 2 regions")
    for region in (WEST, EAST):
        expect(cluster_state(page, region)).to_have_text("Live")
        expect(drawn.get_by_text(region, exact=True)).to_be_visible()
    crossing = row(page, "Traffic between regions", WEST, EAST).first
    expect(crossing.locator("td[data-label='Calls/s']")).to_have_text(POSITIVE)
    expect(crossing.locator("td[data-label=p99]")).to_have_text(re.compile(r"\d ms$"))
    expect(drawn.get_by_text("calls/s").first).to_be_visible()


def test_a_region_dies_and_comes_back(lab: Lab, visit: Visit) -> None:
    page = visit.open()
    expect(cluster_state(page, EAST)).to_have_text("Live")
    lab.fedctl("lab", "kill", EAST)
    expect(cluster_state(page, EAST)).to_have_text(re.compile("^(Stale|Silent)"))
    expect(cluster_state(page, WEST)).to_have_text("Live")
    drawn = page.get_by_role("img", name=re.compile(f"{EAST}: (Stale|Silent)"))
    expect(drawn).to_be_visible()
    lab.fedctl("lab", "restore", EAST)
    expect(cluster_state(page, EAST)).to_have_text("Live")


def test_it_says_that_etcd_is_away_and_how_old_its_state_is(lab: Lab, visit: Visit) -> None:
    page = visit.open()
    banner = page.locator("#banner")
    expect(banner).to_be_empty()
    lab.fedctl("lab", "kill-etcd")
    expect(banner).to_contain_text("etcd is away")
    expect(banner).to_contain_text(re.compile(r"Showing state of \d+ s ago"))
    # What was known is still shown.
    expect(row(page, "Clusters", WEST)).to_be_visible()
    lab.fedctl("lab", "start-etcd")
    expect(banner).to_be_empty()
