"""Services: the list with its filter, one service in depth."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.conftest import EAST, WEST
from tests.browser.pages import row
from tests.testkit.browser import Visit
from tests.testkit.lab import Lab

SERVICE = "app/user-service"


def test_weights_in_force_stand_beside_those_asked_for(lab: Lab, visit: Visit) -> None:
    page = visit.open("/services")
    cells = row(page, "Services", f"{SERVICE}").filter(has_text="60 %").first
    expect(cells.locator("td[data-label=Asked]")).to_contain_text("60 %")
    lab.fedctl("drain", EAST, "--over", "0s", "--grace", "0s")
    expect(cells.locator("td[data-label='In force']")).to_contain_text("100 %")
    expect(cells.locator("td[data-label='Why not as asked']")).to_contain_text("Drained")


def test_a_filter_narrows_the_list_and_stands_in_the_address(visit: Visit) -> None:
    page = visit.open("/services")
    expect(row(page, "Services", "app/")).not_to_have_count(0)
    page.get_by_label("Name contains").fill("nothing-has-this-name")
    expect(page.get_by_text("No service matches.")).to_be_visible()
    page.get_by_label("Name contains").fill("user-service")
    expect(row(page, "Services", SERVICE).first).to_be_visible()
    expect(page).to_have_url(re.compile("q=user-service"))
    page.reload()
    expect(page.get_by_label("Name contains")).to_have_value("user-service")


def test_one_service_shows_tiers_exports_and_reasons(visit: Visit) -> None:
    page = visit.open("/services")
    page.get_by_role("link", name=SERVICE, exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(SERVICE)
    for region in (WEST, EAST):
        shares = row(page, f"For callers in {region}", WEST, "60 %").first
        expect(shares).to_contain_text("ExplicitWeight")
        expect(shares.locator("td[data-label='If that fails']")).to_contain_text(EAST)
        expect(row(page, "Exports", region).first).to_contain_text("3/3")


def test_an_unknown_service_is_said_in_the_servers_words(visit: Visit) -> None:
    page = visit.open("/services/app/no-such-service")
    expect(page.get_by_role("alert")).to_contain_text("app/no-such-service")


def test_gateways_have_version_age_and_state(visit: Visit) -> None:
    page = visit.open("/gateways")
    for number in (1, 2):
        shown = row(page, "Gateways", WEST).nth(number - 1)
        expect(shown.locator("td[data-label=Configuration]")).to_have_text(re.compile(r"\d"))
        expect(shown.locator("td[data-label=State]")).to_have_text(re.compile(r"\w"))
