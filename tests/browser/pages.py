"""What the console shows, by the names that people and screen readers find it by."""

from __future__ import annotations

from playwright.sync_api import Locator, Page

PATHS = {
    "map": "/",
    "services": "/services",
    "service": "/services/app/user-service",
    "gateways": "/gateways",
    "drains": "/drains",
    "timeline": "/timeline",
    "routes": "/routes",
}


def row(page: Page, table: str, *cells: str) -> Locator:
    """The row of ``table`` (its caption) that has all ``cells``."""
    found = page.get_by_role("table", name=table).locator("tbody tr")
    for cell in cells:
        found = found.filter(has_text=cell)
    return found


def cluster_state(page: Page, cluster: str) -> Locator:
    """The state of ``cluster`` on the map's page."""
    return row(page, "Clusters", cluster).locator("td[data-label=State]")


def drain_panel(page: Page, target: str) -> Locator:
    """What the drains' page shows of the drain of ``target``."""
    return page.get_by_role("region", name=target)


def preview_drain(page: Page, target: str, *, over: str, grace: str) -> None:
    """Fill the form and ask what would move."""
    page.get_by_label("Region or cluster").select_option(target)
    page.get_by_role("textbox", name="Ramp").fill(over)
    page.get_by_role("textbox", name="Grace").fill(grace)
    page.get_by_role("button", name="Show what would move").click()
