"""The lab's view and what its figures are made of: nothing hidden, nothing wrong to do next."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from federation.cli.lab.call import parse_header
from federation.cli.lab.client import ClientFigures, server_of
from federation.cli.lab.commands import with_processes
from federation.cli.lab.frame import (
    SILENT,
    DrainFigures,
    Frame,
    GatewayFigures,
    ShareFigures,
    down_in,
    names_of_addresses,
)
from federation.cli.lab.plan import lay_out
from federation.cli.lab.report import table
from federation.cli.lab.view import render

WEST, EAST = "us-west-1", "us-east-1"
CLIENT = ClientFigures(
    window_s=5.0,
    rate=50,
    by_cluster={WEST: 150, EAST: 100},
    by_service={f"{WEST}/user-service": 150, f"{EAST}/user-service": 100},
    total_ok=250,
)
SHARE = ShareFigures("app/user-service", WEST, EAST, 4000, 4000, WEST, "ExplicitWeight")
FRAME = Frame(
    regions=(WEST, EAST),
    leader="resolver-1 leads (term 1)",
    members=((EAST, "live"), (WEST, "live")),
    clients={WEST: CLIENT, EAST: CLIENT},
    shares=(SHARE, replace(SHARE, source=EAST)),
    gateways=tuple(
        GatewayFigures(name=f"gateway-{region}-{number}", state="InSync v1", is_current=True)
        for region in (WEST, EAST)
        for number in (1, 2)
    ),
)


def drawn(frame: Frame, *, width: int = 124) -> str:
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as capture:
        console.print(render(frame, width=width, leaving="stops the lab"))
    return capture.get()


def silent(frame: Frame, *names: str) -> Frame:
    gateways = tuple(
        replace(gateway, state=SILENT) if gateway.name in names else gateway
        for gateway in frame.gateways
    )
    return replace(frame, gateways=gateways)


class TestView:
    def test_the_bar_is_divided_as_the_calls_are(self) -> None:
        (line, _) = [line for line in drawn(FRAME).splitlines() if "▇" in line]
        assert line.split() == [WEST, "▇" * 40, "30", "20", "0", "-", "-", "0", "of", "250"]

    def test_shares_that_are_the_same_from_everywhere_stand_once(self) -> None:
        (line,) = [line for line in drawn(FRAME).splitlines() if "40 %" in line]
        assert "all regions" in line

    def test_calls_answered_by_several_services_are_told_apart_by_service(self) -> None:
        split = {f"{WEST}/user-service-v1": 225, f"{WEST}/user-service-v2": 25}
        client = CLIENT.model_copy(update={"by_service": split, "by_cluster": {WEST: 250}})
        text = drawn(replace(FRAME, clients={WEST: client}))
        assert "user-service-v1  user-service-v2" in text
        assert "no client runs here now" in text

    def test_etcd_away_is_not_taken_for_nothing_imported(self) -> None:
        text = drawn(Frame(regions=(WEST, EAST), leader="leader unknown", etcd_away="it is gone"))
        assert "not known while etcd is away" in text
        assert "nothing is imported" not in text

    @pytest.mark.parametrize("width", [80, 100, 160])
    def test_figures_are_whole_in_any_usual_terminal(self, width: int) -> None:
        text = drawn(FRAME, width=width)
        assert "0 of 250" in text
        assert "…" not in text


class TestNextStep:
    @pytest.mark.parametrize(
        ("frame", "command"),
        [
            (FRAME, "next: fedctl drain us-east-1 · fedctl lab kill us-east-1"),
            (Frame(regions=(WEST, EAST)), "next: fedctl apply -f clusters/examples/"),
            (replace(FRAME, cut_off=(EAST,)), "next: fedctl lab heal"),
            (replace(FRAME, etcd_away="gone"), "next: fedctl lab start-etcd"),
            (
                silent(FRAME, "gateway-us-east-1-1", "gateway-us-east-1-2"),
                "next: fedctl lab restore us-east-1",
            ),
            (silent(FRAME, "gateway-us-east-1-2"), "next: fedctl lab restore gateway-us-east-1-2"),
            (
                replace(FRAME, drains=(DrainFigures(EAST, None, "Ramping"),)),
                "next: fedctl undrain us-east-1",
            ),
            (
                replace(FRAME, drains=(DrainFigures(EAST, "app/user-service", "Ramping"),)),
                "next: fedctl undrain us-east-1 --service app/user-service",
            ),
        ],
    )
    def test_offers_what_undoes_the_state(self, frame: Frame, command: str) -> None:
        assert command in drawn(frame)


class TestDown:
    def test_an_endpoint_that_answers_again_stays_ejected_for_its_time(self) -> None:
        events = [
            {"event": "endpoint_down", "address": "a"},
            {"event": "ejection", "address": "a"},
            {"event": "endpoint_up", "address": "a"},
        ]
        assert down_in(events, {"a": "gateway-x"}) == ("gateway-x ejected",)
        assert down_in([*events, {"event": "uneject", "address": "a"}], {}) == ()

    def test_down_and_ejected_is_down(self) -> None:
        events = [
            {"event": "ejection", "address": "a"},
            {"event": "endpoint_down", "address": "a"},
            {"event": "something_newer", "address": "b"},
        ]
        assert down_in(events, {}) == ("a down",)


def test_paths_through_relays_are_called_by_the_gateway_behind_them() -> None:
    layout = lay_out(directory=Path("/x"), regions=(WEST, EAST), latency_ms=0, calls_per_second=0)
    plan = with_processes(layout)
    names = names_of_addresses(plan)
    west = plan.cluster(WEST)
    found = {names[route.listen] for route in west.relay.routes if route.region is not None}
    assert found == {"gateway-us-east-1-1", "gateway-us-east-1-2"}
    endpoint = west.demo.endpoints[0]
    assert names[endpoint.address].startswith(f"{endpoint.service}:")


def test_the_status_says_what_mends_what_was_broken() -> None:
    def process(name: str, cluster: str | None, *, alive: bool) -> dict[str, object]:
        role = name.partition("-")[0]
        return {"name": name, "role": role, "cluster": cluster, "pid": 1, "alive": alive}

    found = {
        "etcd": "127.0.0.1:1",
        "console": "http://127.0.0.1:1/",
        "partitioned": [WEST],
        "clusters": [],
        "processes": [
            process("etcd", None, alive=False),
            process("relay-us-east-1", EAST, alive=True),
            process("agent-us-east-1", EAST, alive=False),
            process("demo-us-east-1", EAST, alive=False),
            process("agent-us-west-1", WEST, alive=False),
            process("demo-us-west-1", WEST, alive=True),
        ],
    }
    assert table(found).splitlines()[-5:] == [
        "",
        "us-west-1 is cut off; connect it: fedctl lab heal",
        "etcd is dead; start it: fedctl lab restore etcd",
        "us-east-1 is dead; start it: fedctl lab restore us-east-1",
        "agent-us-west-1 is dead; start it: fedctl lab restore agent-us-west-1",
    ]


def test_who_answered_is_read_from_the_metadata() -> None:
    assert server_of([("x-served-by", "us-west-1/app/user-service/127.0.0.1:1")]) == (
        WEST,
        "user-service",
    )
    assert server_of(None) == ("?", "?")


def test_headers_of_calls_are_name_and_value() -> None:
    assert parse_header("X-Canary: true") == ("x-canary", "true")
    with pytest.raises(ValueError, match='-H wants NAME:VALUE, got "x"'):
        parse_header("x")
