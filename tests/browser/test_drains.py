"""Drains: one watched from its start to its end, one started and stopped on the page."""

from __future__ import annotations

import os
import re

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import EAST, WEST
from tests.browser.pages import drain_panel, preview_drain, row
from tests.testkit.browser import Visit
from tests.testkit.lab import Lab


def test_a_drain_is_watched_from_start_to_end(lab: Lab, visit: Visit) -> None:
    page = visit.open("/drains")
    expect(page.get_by_text("Nothing is drained.")).to_be_visible()
    lab.fedctl("drain", EAST, "--over", "6s", "--grace", "3s")
    panel = drain_panel(page, EAST)
    ramp = panel.get_by_role("progressbar", name="Ramp")
    expect(panel.get_by_text("Ramping", exact=True)).to_be_visible()
    expect(ramp).to_have_attribute("aria-valuenow", re.compile(r"^[1-9]\d$"))
    expect(panel.get_by_text("Drained", exact=True)).to_be_visible()
    expect(ramp).to_have_attribute("aria-valuenow", "100")
    expect(panel).to_contain_text("0 %")
    page.get_by_role("link", name="Map").click()
    expect(row(page, "Clusters", EAST)).to_contain_text("Drained")
    lab.fedctl("undrain", EAST)
    expect(row(page, "Clusters", EAST)).to_contain_text("Live")


def test_a_drain_is_shown_first_then_started_by_name_then_stopped(lab: Lab, visit: Visit) -> None:
    page = visit.open("/drains")
    preview_drain(page, EAST, over="2s", grace="1s")
    moves = row(page, "What would move", "app/user-service")
    expect(moves).to_contain_text(WEST)
    assert lab.federation()["drains"] == []
    start = page.get_by_role("button", name="Start drain")
    expect(start).to_be_disabled()
    confirm = page.get_by_label(f"Type {EAST} to start the drain")
    confirm.fill("us-east")
    expect(start).to_be_disabled()
    confirm.fill(EAST)
    start.click()
    panel = drain_panel(page, EAST)
    expect(panel.get_by_text("Drained", exact=True)).to_be_visible()
    assert [drain["target"] for drain in lab.federation()["drains"]] == [EAST]
    panel.get_by_role("button", name=f"Stop the drain of {EAST}").click()
    expect(page.get_by_text("Nothing is drained.")).to_be_visible()
    lab.wait(lambda: lab.federation()["drains"] == [], timeout_s=30, what="the drain is gone")


def test_a_changed_form_takes_the_preview_back(visit: Visit) -> None:
    page = visit.open("/drains")
    preview_drain(page, EAST, over="2s", grace="1s")
    expect(page.get_by_role("table", name="What would move")).to_be_visible()
    page.get_by_role("textbox", name="Ramp").fill("3s")
    expect(page.get_by_role("table", name="What would move")).to_have_count(0)
    expect(page.get_by_role("button", name="Start drain")).to_have_count(0)


def test_a_drain_that_leaves_nothing_is_refused_in_the_servers_words(
    lab: Lab, visit: Visit
) -> None:
    lab.fedctl("drain", EAST, "--over", "0s", "--grace", "0s")
    page = visit.open("/drains")
    expect(drain_panel(page, EAST).get_by_text("Drained", exact=True)).to_be_visible()
    preview_drain(page, WEST, over="1s", grace="1s")
    refused = page.get_by_text("It would be refused:")
    expect(refused).to_be_visible()
    expect(refused.locator("..")).to_contain_text("would leave no healthy cluster for")
    expect(page.get_by_role("button", name="Start drain")).to_have_count(0)


def test_a_value_that_cannot_be_read_is_explained(visit: Visit) -> None:
    page = visit.open("/drains")
    preview_drain(page, EAST, over="soon", grace="1s")
    expect(page.get_by_role("alert")).to_contain_text("soon")


def test_names_that_look_like_markup_are_text(
    lab: Lab, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = "<img src=x onerror=\"document.title='owned'\">"
    monkeypatch.setitem(os.environ, "LOGNAME", hostile)
    page = visit.open("/drains")
    lab.fedctl("drain", EAST, "--over", "1m", "--grace", "1s")
    expect(page.get_by_text(f"asked for by {hostile}")).to_be_visible()
    assert page.locator("img[src=x]").count() == 0
    assert "owned" not in page.title()
