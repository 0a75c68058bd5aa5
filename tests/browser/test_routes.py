"""Routes: the rules in force, and the tester."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.browser.conftest import EAST, WEST
from tests.browser.pages import row
from tests.testkit.browser import Visit

METHOD = "com.example.api.UserService/GetUser"


def test_a_call_is_explained(visit: Visit) -> None:
    page = visit.open("/routes")
    expect(page.get_by_role("textbox", name="Host")).to_have_value("grpc.example.com")
    page.get_by_label("From cluster").select_option(WEST)
    page.get_by_label("gRPC method or path").fill(METHOD)
    page.get_by_role("button", name="Test").click()
    answer = page.get_by_role("region", name="Answer")
    expect(answer).to_contain_text("forward")
    to_west = row(page, "Destinations", "60 %").first
    expect(to_west.locator("td[data-label=Endpoints]")).to_contain_text("127.0.0.1:")
    expect(row(page, "Destinations", EAST, "40 %").first).to_contain_text("by its gateway")
    expect(row(page, "Rules considered", "user-service-multi-cluster").first).to_contain_text("yes")


def test_a_call_that_no_rule_takes_is_explained(visit: Visit) -> None:
    page = visit.open("/routes")
    page.get_by_label("gRPC method or path").fill("com.example.api.Unknown/Call")
    page.get_by_label("Headers").fill("x-tenant: a")
    page.get_by_role("button", name="Test").click()
    answer = page.get_by_role("region", name="Answer")
    expect(answer.locator(".tag").first).to_have_text("none")
    expect(row(page, "Rules considered", "no").first).to_be_visible()


def test_rules_in_force_are_listed(visit: Visit) -> None:
    page = visit.open("/routes")
    rules = row(page, "Rules in force in", "grpc.example.com").first
    expect(rules).to_contain_text("com.example.api.UserService")
