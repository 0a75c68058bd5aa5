"""Records on their way to collectors: real OTLP servers that answer, refuse, are slow or away."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from gateway.telemetry import TelemetrySender, otlp
from gateway.telemetry.exporter import QUEUE_BYTES_MAX
from gateway.telemetry.otlp import Signal
from gateway.xds_translate import Kind, Piece, PieceId
from tests.testkit.otlp import Request, Response, ScopeRecords, Span
from tests.testkit.ports import free_port

COLLECTOR = "service/infra/otel/4317"
OTHER = "service/infra/other/4317"
RESOURCE = {"service.name": "federation-gateway", "service.version": "1", "cloud.region": ""}

Context = grpc.aio.ServicerContext[Any, Any]
Answer = Callable[[Any, Context], Awaitable[Any]]


class Collector:
    """An OTLP server; ``answer`` decides what it says to spans."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.port = free_port()
        self.spans: list[str] = []
        self.requests: list[Any] = []
        self.logs: list[Any] = []

    async def _traces(self, request: Any, context: Context) -> Any:
        self.requests.append(request)
        answer = await self._answer(request, context)
        self.spans += [
            span.name
            for of in request.resource_records
            for scoped in of.scope_records
            for span in scoped.records
        ]
        return answer

    async def _logs(
        self,
        request: Any,
        _context: Context,
    ) -> Any:
        self.logs.append(request)
        return Response()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Collector]:
        server = grpc.aio.server()
        for signal, request, method in (
            (Signal.TRACES, Request, self._traces),
            (Signal.LOGS, Request, self._logs),
        ):
            _, service, name = otlp.METHODS[signal].split("/")
            handler = grpc.unary_unary_rpc_method_handler(
                method,
                request_deserializer=request.FromString,
                response_serializer=lambda message: message.SerializeToString(),
            )
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(service, {name: handler}),)
            )
        server.add_insecure_port(f"127.0.0.1:{self.port}")
        await server.start()
        try:
            yield self
        finally:
            await server.stop(grace=None)


async def taken(_request: Any, _context: Context) -> Any:
    return Response()


async def never(_request: Any, _context: Context) -> Any:
    await asyncio.Event().wait()


class Records:
    """What the core has recorded."""

    def __init__(self) -> None:
        self.waiting: list[tuple[str, str, int, bytes]] = []
        self.asked = 0

    def take_telemetry(self, max_bytes: int) -> list[tuple[str, str, int, bytes]]:
        self.asked += 1
        assert max_bytes > 0
        taken, self.waiting = self.waiting, []
        return taken

    def spans(self, *names: str, collector: str = COLLECTOR) -> None:
        body = ScopeRecords(records=[Span(name=name) for name in names])
        self.waiting.append((collector, "traces", len(names), body.SerializeToString()))


def in_force(**addresses: list[str]) -> dict[PieceId, Piece]:
    """A listener that names collectors, and their endpoints."""
    names = {"collector": COLLECTOR, "other": OTHER}
    pieces = [
        Piece(
            PieceId(Kind.LISTENERS, f"l-{key}"),
            {
                "telemetry": {
                    "tracing": {"collector": names[key], "sampling_per_million": 1, "tags": []},
                    "access_logs": [{"sink": {"file": "/x"}}, {"sink": {"otlp": names[key]}}],
                }
            },
        )
        for key in addresses
    ]
    pieces += [
        Piece(
            PieceId(Kind.ENDPOINTS, names[key]),
            {
                "localities": [
                    {
                        "endpoints": [
                            {"address": address, "health": "healthy", "peer": False}
                            for address in found
                        ]
                    }
                ]
            },
        )
        for key, found in addresses.items()
    ]
    return {piece.id: piece for piece in pieces}


def at(collector: Collector) -> str:
    return f"127.0.0.1:{collector.port}"


async def eventually(holds: Callable[[], object], what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, what()
        await asyncio.sleep(0.02)


@pytest.fixture
def records() -> Records:
    return Records()


def sender_of(records: Records) -> TelemetrySender:
    return TelemetrySender(records, resource=lambda: RESOURCE)


def state_of(sender: TelemetrySender, name: str = COLLECTOR) -> dict[str, Any]:
    nothing: dict[str, Any] = {"sent": {}, "dropped": {}, "failing": None}
    return next((it for it in sender.state() if it["collector"] == name), nothing)


async def test_records_arrive_with_resource_and_scope(records: Records) -> None:
    sender = sender_of(records)
    async with Collector(taken).serving() as collector, sender.running():
        records.spans("a", "b")
        records.waiting.append((COLLECTOR, "logs", 0, b""))
        sender.update(in_force(collector=[at(collector)]))
        await eventually(lambda: collector.spans == ["a", "b"], sender.state)
        await eventually(lambda: collector.logs, sender.state)
        (of,) = collector.requests[0].resource_records
        told = {it.key: it.value.string_value for it in of.resource.attributes}
        assert told == {"service.name": "federation-gateway", "service.version": "1"}
        (scoped,) = of.scope_records
        assert (scoped.scope.name, scoped.scope.version) == ("federation-gateway", "1")
        await eventually(lambda: state_of(sender)["sent"] == {"traces": 2, "logs": 0}, sender.state)
        assert state_of(sender)["dropped"] == {}


async def test_the_next_endpoint_is_tried(records: Records) -> None:
    sender = sender_of(records)
    async with Collector(taken).serving() as collector, sender.running():
        # Sorted, the one where nobody listens comes first or last: both orders are tried.
        sender.update(in_force(collector=[f"127.0.0.1:{free_port()}", at(collector)]))
        records.spans("a")
        await eventually(lambda: collector.spans == ["a"], sender.state)
        sender.update(in_force(collector=[at(collector), f"127.0.0.2:{free_port()}"]))
        records.spans("b")
        await eventually(lambda: collector.spans == ["a", "b"], sender.state)


async def test_what_may_pass_later_is_tried_again(records: Records) -> None:
    refusals = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED]

    async def answer(request: Any, context: Context) -> Any:
        if refusals:
            code = refusals.pop()
            detail = status_pb2.Status(code=code.value[0])
            detail.details.add().Pack(error_details_pb2.RetryInfo())
            context.set_trailing_metadata(
                (("grpc-status-details-bin", detail.SerializeToString()),)
            )
            await context.abort(code, "busy")
        return await taken(request, context)

    sender = sender_of(records)
    async with Collector(answer).serving() as collector, sender.running():
        sender.update(in_force(collector=[at(collector)]))
        records.spans("a")
        await eventually(lambda: collector.spans == ["a"], sender.state)
        assert len(collector.requests) == 3
        assert state_of(sender)["dropped"] == {}


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED]
)
async def test_a_refusal_is_final_and_counted(records: Records, code: grpc.StatusCode) -> None:
    async def answer(_request: Any, context: Context) -> Any:
        await context.abort(code, "no")

    sender = sender_of(records)
    async with Collector(answer).serving() as collector, sender.running():
        sender.update(in_force(collector=[at(collector)]))
        records.spans("a", "b", "c")
        await eventually(lambda: state_of(sender)["dropped"], sender.state)
        assert state_of(sender)["dropped"] == {"traces": {"refused": 3}}
        assert state_of(sender)["failing"] == f"{code.name}: no"
        assert len(collector.requests) == 1


async def test_what_is_taken_in_part_is_counted(records: Records) -> None:
    async def answer(_request: Any, _context: Context) -> Any:
        response = Response()
        response.partial_success.rejected = 2
        response.partial_success.error_message = "too old"
        return response

    sender = sender_of(records)
    async with Collector(answer).serving() as collector, sender.running():
        sender.update(in_force(collector=[at(collector)]))
        records.spans("a", "b", "c")
        await eventually(lambda: state_of(sender)["sent"], sender.state)
        assert state_of(sender)["sent"] == {"traces": 1}
        assert state_of(sender)["dropped"] == {"traces": {"rejected": 2}}
        assert state_of(sender)["failing"].endswith("rejected 2 records: too old")


async def test_a_slow_collector_costs_bounded_memory_and_no_other_collector(
    records: Records,
) -> None:
    sender = sender_of(records)
    async with (
        Collector(never).serving() as slow,
        Collector(taken).serving() as other,
        sender.running(),
    ):
        sender.update(in_force(collector=[at(slow)], other=[at(other)]))
        for _ in range(24):
            records.spans("x" * (1 << 20))
        records.spans("fine", collector=OTHER)
        await eventually(lambda: other.spans == ["fine"], sender.state)
        state = state_of(sender)
        assert 0 < state["queued_bytes"] <= QUEUE_BYTES_MAX
        assert state["dropped"]["traces"]["queue_full"] >= 18
        assert state_of(sender, OTHER)["dropped"] == {}


async def test_a_stop_is_held_up_for_a_second_at_most(records: Records) -> None:
    sender = sender_of(records)
    async with Collector(never).serving() as slow, Collector(taken).serving() as other:
        async with sender.running():
            sender.update(in_force(collector=[at(slow)], other=[at(other)]))
            records.spans("lost", "too")
            await eventually(lambda: slow.requests, sender.state)
            # Recorded after the last look: still sent.
            records.spans("late", collector=OTHER)
            began = time.monotonic()
        assert time.monotonic() - began < 5, "1 s, and a busy machine's part"
        assert other.spans == ["late"]
        assert state_of(sender)["dropped"] == {"traces": {"stopped": 2}}


async def test_it_ends_when_no_policy_asks_any_more(records: Records) -> None:
    sender = sender_of(records)
    async with Collector(taken).serving() as collector, sender.running():
        assert records.asked == 0
        sender.update(in_force(collector=[at(collector)]))
        await eventually(lambda: records.asked > 1, sender.state)
        records.spans("a")
        await eventually(lambda: collector.spans == ["a"], sender.state)
        sender.update({})
        await eventually(lambda: state_of(sender)["endpoints"] == [], sender.state)
        assert not state_of(sender)["named"]
        asked = records.asked
        records.spans("b")
        await asyncio.sleep(1)  # longer than several looks
        assert (records.asked, collector.spans) == (asked, ["a"])


async def test_a_collector_without_endpoints_is_waited_for(records: Records) -> None:
    sender = sender_of(records)
    async with Collector(taken).serving() as collector, sender.running():
        sender.update(in_force(collector=[]))
        records.spans("a")
        await eventually(lambda: sender.state() and state_of(sender)["failing"], sender.state)
        assert state_of(sender)["failing"] == "no endpoint"
        sender.update(in_force(collector=[at(collector)]))
        await eventually(lambda: collector.spans == ["a"], sender.state)


async def test_a_call_under_way_when_all_endpoints_go_is_made_again(records: Records) -> None:
    reached = asyncio.Event()

    async def silent(_request: Any, _context: Context) -> Any:
        reached.set()
        await asyncio.Event().wait()

    former, collector = Collector(silent), Collector(taken)
    async with former.serving(), collector.serving():
        sender = sender_of(records)
        sender.update(in_force(collector=[at(former)]))
        async with sender.running():
            records.spans("under way")
            await asyncio.wait_for(reached.wait(), 20)
            sender.update(in_force(collector=[]))
            await eventually(lambda: not state_of(sender)["endpoints"], sender.state)
            records.spans("next")  # the worker that sends it closes the connection of the other
            await eventually(lambda: state_of(sender)["failing"], sender.state)
            sender.update(in_force(collector=[at(collector)]))
            await eventually(lambda: len(collector.spans) == 2, sender.state)
    assert sorted(collector.spans) == ["next", "under way"]
    assert state_of(sender)["dropped"] == {}


async def test_metrics_that_cannot_be_measured_end_nothing_else(records: Records) -> None:
    async def measure() -> bytes:
        measured.set()
        raise RuntimeError("no numbers")

    measured = asyncio.Event()
    collector = Collector(taken)
    async with collector.serving():
        sender = TelemetrySender(records, resource=lambda: RESOURCE, measure=measure)
        sender.update(in_force(collector=[at(collector)]))
        async with sender.running():
            await asyncio.wait_for(measured.wait(), 20)
            records.spans("span")
            await eventually(lambda: collector.spans == ["span"], sender.state)
    assert state_of(sender)["dropped"] == {}


@given(st.lists(st.text(max_size=300), max_size=20))
def test_joining_bytes_makes_the_message(names: list[str]) -> None:
    spans = [Span(name=name) for name in names]
    resource, scope = otlp.envelope({"a": "é" * 200}, "1")
    body = otlp.request(
        ScopeRecords(records=spans).SerializeToString(), resource=resource, scope=scope
    )
    message = Request.FromString(body)
    expected = Request()
    of = expected.resource_records.add()
    attribute = of.resource.attributes.add(key="a")
    attribute.value.string_value = "é" * 200
    scoped = of.scope_records.add(records=spans)
    scoped.scope.name, scoped.scope.version = "federation-gateway", "1"
    assert message == expected
