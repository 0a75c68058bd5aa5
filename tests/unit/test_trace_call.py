"""From a recorded line to a call, and which line of a trace is meant."""

from __future__ import annotations

import json

import pytest
import typer

from federation.cli.context import CommandError
from federation.cli.trace import EAST_WEST, call_of, find_record

METHOD = "/app.v1.Users/Get"
INGRESS = {
    "trace_id": "abc",
    "listener": "infra/gw/443",
    "method": METHOD,
    "authority": "users.example.com",
    "source_cluster": "us-west-1",
    "rule": "r",
}
PASSED_ON = {**INGRESS, "listener": EAST_WEST, "rule": "export"}
OTHER = {**INGRESS, "trace_id": "def"}


def lines(*records: dict[str, str]) -> list[str]:
    return ["no json\n", "[1]\n", *(json.dumps(record) + "\n" for record in records)]


def test_the_line_where_a_call_came_in_is_meant() -> None:
    assert find_record(lines(OTHER, PASSED_ON, INGRESS), "abc") == INGRESS
    assert find_record(lines(OTHER, PASSED_ON), "abc") == PASSED_ON
    assert find_record(lines(OTHER, INGRESS), "") == OTHER


def test_a_trace_that_is_not_there_is_told_with_the_next_step() -> None:
    with pytest.raises(CommandError, match="trace id xyz is there; record one: fedctl tap"):
        find_record(lines(OTHER), "xyz")


def test_what_is_typed_goes_before_what_is_recorded() -> None:
    empty = {"cluster": None, "host": None, "method": None, "headers": (), "port": None}
    call = call_of(INGRESS, **empty)
    assert (call.cluster, call.request.host, call.request.path) == (
        *("us-west-1", "users.example.com"),
        METHOD,
    )
    call = call_of(INGRESS, **empty | {"method": "app.v1.Users/List", "cluster": "us-east-1"})
    assert (call.cluster, call.request.path) == ("us-east-1", "/app.v1.Users/List")
    with pytest.raises(typer.BadParameter, match="name --from, --host and --method"):
        call_of(None, **empty)
