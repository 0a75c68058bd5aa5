"""Traces of changes: how they end, whatever the gateways do."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from federation.agent.tracing import OPEN_MAX, ChangeTraces
from federation.aio import Latest
from federation.model.acks import AckView, NodeAcks, RefusedResource
from federation.model.base import ClusterId
from federation.telemetry import spans

WEST = ClusterId("us-west-1")


@dataclass
class Rig:
    exporter: InMemorySpanExporter = field(default_factory=InMemorySpanExporter)
    acks: Latest[AckView] = field(default_factory=lambda: Latest(AckView()))

    def __post_init__(self) -> None:
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.traces = ChangeTraces(provider.get_tracer("test"), self.acks, WEST)

    def publish(self, generation: int) -> None:
        change = self.traces.change(
            {}, {}, objects_at_ns=0, federation_at_ns=1, revision=generation
        )
        change.begin(spans.PUBLISH)
        self.traces.published(change, generation)

    def answer(self, *nodes: NodeAcks) -> None:
        self.acks.set(AckView(generation=9, nodes=nodes))
        self.traces._look(AckView(generation=9, nodes=nodes))

    def ended(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def node(generation: int, *refused: RefusedResource, name: str = "gw-1") -> NodeAcks:
    return NodeAcks(name, "gateway", generation, refused=refused)


def test_without_gateways_a_change_ends_with_its_publication(rig: Rig) -> None:
    rig.publish(1)
    assert len(rig.ended(spans.FEDERATION_CHANGE)) == 1
    assert rig.ended(spans.ACKNOWLEDGE) == []


def test_a_change_ends_with_the_last_gateways_answer(rig: Rig) -> None:
    rig.answer(node(1), node(1, name="gw-2"))
    rig.publish(2)
    rig.answer(node(2), node(1, name="gw-2"))
    assert rig.ended(spans.FEDERATION_CHANGE) == []
    rig.answer(node(2), node(3, name="gw-2"))
    (root,) = rig.ended(spans.FEDERATION_CHANGE)
    answers = {str(it.attributes[spans.NODE]): it for it in rig.ended(spans.ACKNOWLEDGE)}  # type: ignore[index]
    assert answers["gw-2"].attributes[spans.SNAPSHOT] == 3  # type: ignore[index]
    assert root.context is not None
    for answer in answers.values():
        assert answer.parent is not None
        assert answer.parent.span_id == root.context.span_id
        assert answer.status.status_code is StatusCode.UNSET


def test_a_refusal_is_an_error_with_its_reason(rig: Rig) -> None:
    rig.answer(node(1))
    rig.publish(2)
    rig.answer(node(2, RefusedResource("routes", "edge", "no such cluster")))
    (answer,) = rig.ended(spans.ACKNOWLEDGE)
    assert answer.status.status_code is StatusCode.ERROR
    assert answer.status.description == "no such cluster"
    assert answer.attributes[spans.REFUSED] == ("routes edge",)  # type: ignore[index]


def test_a_gateway_that_leaves_owes_no_answer(rig: Rig) -> None:
    rig.answer(node(1))
    rig.publish(2)
    rig.answer()
    (answer,) = rig.ended(spans.ACKNOWLEDGE)
    assert answer.status.description == "the gateway has left"
    assert len(rig.ended(spans.FEDERATION_CHANGE)) == 1


def test_a_deaf_gateway_keeps_no_more_than_so_many_open(rig: Rig) -> None:
    rig.answer(node(0))
    for generation in range(1, OPEN_MAX + 3):
        rig.publish(generation)
    assert len(rig.ended(spans.FEDERATION_CHANGE)) == 2
    assert repr(rig.traces) == f"ChangeTraces(open={OPEN_MAX})"
    assert all(span.status.status_code is StatusCode.ERROR for span in rig.ended(spans.ACKNOWLEDGE))
