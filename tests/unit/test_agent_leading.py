"""Two agents of a cluster: whose claim holds, and what they know of gateways together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from federation.adapters.memory import MemoryCluster, MemoryStore
from federation.agent.claim import NameTakenError, OvertakenError, claim
from federation.agent.leader import Leader
from federation.aio import Latest, cancel_and_wait
from federation.derive.agents import MESSAGE_MAX, REFUSALS_MAX, configuration, together, told
from federation.model.acks import AckView, NodeAcks, RefusedResource
from federation.model.base import ClusterId, Region
from federation.model.facts import Member
from federation.ports import Put
from federation.wire.etcd_keys import Keys
from federation.wire.manifests import decode_all, parse_documents
from tests.testkit.standalone import until

KEYS = Keys()
WEST = ClusterId("west")


def member(leader: str, instance: str = "uid") -> Member:
    return Member(cluster=WEST, region=Region("r"), instance=instance, leader=leader)


async def test_what_a_former_leader_writes_is_refused() -> None:
    store = MemoryStore(MemoryCluster())
    first = await claim(store, KEYS, member("a.1"))
    again = await claim(store, KEYS, member("a.1"), overtake=False)
    assert again == first
    assert await store.commit([Put("x", b"a")], guards=[first.guard]) is not None
    second = await claim(store, KEYS, member("b.1"))
    assert await store.commit([Put("x", b"late")], guards=[first.guard]) is None
    assert await store.commit([Put("x", b"b")], guards=[second.guard]) is not None
    with pytest.raises(OvertakenError, match=r"agent b\.1 leads now"):
        await claim(store, KEYS, member("a.1"), overtake=False)
    with pytest.raises(NameTakenError):
        await claim(store, KEYS, member("c.1", instance="another cluster"))
    # The name is the cluster's all the while: nobody sees it made anew.
    entry = await store.get(KEYS.member(WEST))
    assert entry is not None
    assert entry.create_revision < entry.mod_revision


class Seat:
    """Somebody who is told when to lead."""

    identity = "a"

    def __init__(self) -> None:
        self.given = asyncio.Event()
        self.taken = asyncio.Event()
        self.terms = 0

    @asynccontextmanager
    async def campaign(self) -> AsyncGenerator[Seat, None]:
        await self.given.wait()
        self.taken.clear()
        self.terms += 1
        yield self

    @property
    def name(self) -> str:
        return f"a.{self.terms}"

    async def lost(self) -> None:
        await self.taken.wait()


async def test_loops_that_write_run_in_terms() -> None:
    seat, running = Seat(), set[str]()

    async def loop(term: str) -> None:
        running.add(term)
        try:
            await asyncio.Event().wait()
        finally:
            running.discard(term)

    leader = Leader(seat, loops=lambda term: {"loop": lambda: loop(term)})
    task = asyncio.create_task(leader.run())
    try:
        seat.given.set()
        await until(lambda: running == {"a.1"}, "the first term")
        assert leader.leading.value
        seat.given.clear()
        seat.taken.set()
        await until(lambda: not running, "the loops have ended")
        await until(lambda: leader.leading.value is False, "it stands by")
        seat.given.set()
        await until(lambda: running == {"a.2"}, "the second term")
    finally:
        await cancel_and_wait(task)
    assert not running


async def test_a_leader_that_is_overtaken_stands_by() -> None:
    seat, overtaken = Seat(), asyncio.Event()
    terms: Latest[str] = Latest("")

    async def loop(term: str) -> None:
        terms.set(term)
        await overtaken.wait()
        overtaken.clear()
        raise OvertakenError("another leads")

    leader = Leader(seat, loops=lambda term: {"loop": lambda: loop(term)})
    task = asyncio.create_task(leader.run())
    try:
        seat.given.set()
        await until(lambda: terms.value == "a.1", "the first term")
        overtaken.set()
        await until(lambda: terms.value == "a.2", "the next one")
    finally:
        await cancel_and_wait(task)


def node(name: str, generation: int, *refused: RefusedResource) -> NodeAcks:
    return NodeAcks(name, "gateway", generation, f"{name}:15444", refused=refused)


def test_gateways_of_the_others_count_at_the_same_configuration() -> None:
    own = AckView(7, (node("gw-1", 7),))
    others = [told("b", AckView(3, (node("gw-2", 3), node("gw-3", 2))), configured="same")]
    found = together(own, others, configured="same")
    assert {n.node: n.generation for n in found.nodes} == {"gw-1": 7, "gw-2": 7, "gw-3": 0}
    found = together(own, others, configured="another")
    assert {n.node: n.generation for n in found.nodes} == {"gw-1": 7, "gw-2": 0, "gw-3": 0}
    assert found.nodes[1].eastwest_address == "gw-2:15444"


def test_a_gateway_that_is_here_counts_as_it_does_here() -> None:
    own = AckView(7, (node("gw-1", 6),), left=("gw-9", "gw-2"))
    others = [told("b", AckView(3, (node("gw-1", 3), node("gw-2", 3)), ("gw-8",)), configured="x")]
    found = together(own, others, configured="x")
    assert {n.node: n.generation for n in found.nodes} == {"gw-1": 6, "gw-2": 7}
    assert found.left == ("gw-8", "gw-9"), "gw-2 is back, at the other agent"


def test_refusals_travel_bounded() -> None:
    many = [RefusedResource("routes", f"r{n}", "x" * 1000) for n in range(REFUSALS_MAX + 5)]
    view = told("b", AckView(3, (node("gw-2", 3, *many),)), configured="same")
    (found,) = together(AckView(7), [view], configured="same").nodes
    assert len(found.refused) == REFUSALS_MAX
    assert found.refused[0] == RefusedResource("routes", "r0", "x" * MESSAGE_MAX)


def test_a_configuration_is_known_by_the_generations_of_its_objects() -> None:
    def digest(generation: int, uid: str = "u", *, order: int = 1) -> str:
        text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\n"
        text += "apiVersion: v1\nkind: Namespace\nmetadata: {name: b}\n"
        found = decode_all(parse_documents(text, origin="test")).objects
        changed = [o.with_metadata(generation=generation, uid=uid) for o in found[::order]]
        objects = {value.key: value for value in changed}
        return configuration(objects, objects)

    assert digest(1) == digest(1, order=-1)
    assert len({digest(1), digest(2), digest(1, "v")}) == 3
