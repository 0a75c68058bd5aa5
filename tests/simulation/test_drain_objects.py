"""Drain objects from the cluster that they stand in to the resolver, in virtual time."""

from __future__ import annotations

from pathlib import Path

from federation.derive.drain_admission import DrainRight
from federation.derive.drain_requests import REQUESTS_MAX
from federation.model.base import ClusterId, Region
from federation.model.drain import Drain, DrainTargetKind
from federation.model.objects import DrainRequest, ObjectKey
from federation.model.status import ObjectStatus
from federation.model.traffic_report import Flow, TrafficReport
from federation.ports import Delete, Put
from federation.wire.etcd import to_bytes
from federation.wire.etcd_traffic import traffic_to_bytes
from federation.wire.statuses import status_document
from tests.simulation.world import KEYS, World, pass_time, service, until, world

VIRTUAL_TIME = True


def drain(name: str, target: str, **spec: object) -> str:
    """A Drain; ``expires`` and the like in ``spec``."""
    fields = "".join(f"  {field}: {value}\n" for field, value in spec.items())
    return (
        "apiVersion: federation.dev/v1alpha1\nkind: Drain\n"
        f"metadata: {{name: {name}}}\nspec:\n  target: {target}\n  over: 10s\n  grace: 5s\n{fields}"
    )


def key(name: str) -> ObjectKey:
    return ObjectKey(DrainRequest.GROUP, DrainRequest.KIND, "", name)


async def status(made: World, cluster: str, name: str = "d") -> ObjectStatus:
    return (await made[cluster].statuses()).get(key(name), ObjectStatus())


def told(found: ObjectStatus, kind: str = "Accepted") -> str:
    condition = found.condition(kind)
    return f"{condition.status}, {condition.reason}" if condition else ""


async def serving(made: World, *clusters: str) -> None:
    """Every cluster exports the service with two endpoints."""
    for cluster in clusters:
        await made[cluster].apply(service("user", ready=2))
    await until(
        lambda: (
            len(next(iter(made.view.exports.values()), {})) == len(clusters)
            and len(made.view.gateways) == len(clusters)
        ),
        "all exports",
    )


async def test_an_object_drains_its_cluster_and_its_end_undoes_it(tmp_path: Path) -> None:
    async with world(tmp_path, "east", "west", resolver=True) as made:
        await serving(made, "east", "west")
        await made["west"].apply(drain("d", "west"))
        await pass_time(5.3)
        halfway = await status(made, "west")
        assert halfway.drain is not None
        assert (halfway.drain.phase, halfway.drain.percent_moved) == ("Ramping", 50)
        assert told(halfway) == "True, Accepted"
        assert told(halfway, "Drained") == "False, Ramping"
        await pass_time(15)
        assert told(await status(made, "west"), "Drained") == "True, Drained"
        await made["west"].delete(key("d"))
        await pass_time(1)
        assert not made.view.drains
        assert made.view.drain_states["west:d"].returning
        await pass_time(6)
        assert not made.view.drain_states


async def test_an_objects_status_says_how_many_streams_are_left(tmp_path: Path) -> None:
    async with world(tmp_path, "east", "west", resolver=True) as made:
        await serving(made, "east", "west")
        await made["west"].apply(drain("d", "west"))
        await pass_time(3)
        assert "streamsLeft" not in status_document(await status(made, "west"))
        for streams in (4, 0):
            flow = Flow(service="app/user", to_cluster=ClusterId("west"), open=streams)
            told_by = TrafficReport(
                at=1.0, cluster=ClusterId("east"), region=Region("region-east"), flows=(flow,)
            )
            key_of = KEYS.traffic_of(told_by.cluster)
            await made.onlooker.commit([Put(key_of, traffic_to_bytes(told_by))])
            await pass_time(5)
            found = await status(made, "west")
            assert found.drain is not None
            assert found.drain.streams_left == streams
            assert status_document(found)["streamsLeft"] == streams


async def test_a_region_is_drained_by_a_cluster_in_it(tmp_path: Path) -> None:
    async with world(tmp_path, "east", "west", resolver=True) as made:
        await serving(made, "east", "west")
        await made["west"].apply(drain("d", "region-west"))
        await pass_time(1)
        assert made.view.drains["west:d"].target_kind is DrainTargetKind.REGION
        assert told(await status(made, "west")) == "True, Accepted"


async def test_other_clusters_take_a_right(tmp_path: Path) -> None:
    async with world(tmp_path, "east", "west") as made:
        made.start_resolver(DrainRight("east", "region-west"))
        await serving(made, "east", "west")
        await made["west"].apply(drain("d", "east"))
        await made["east"].apply(drain("d", "region-west"))
        await pass_time(1)
        refused = await status(made, "west")
        assert told(refused) == "False, NotPermitted"
        condition = refused.condition("Accepted")
        assert condition is not None
        assert "--may-drain west=east" in condition.message
        assert refused.drain is not None
        assert refused.drain.phase == "Refused"
        assert told(await status(made, "east")) == "True, Accepted"
        assert made.view.drain_states["west:d"].remaining_bp == 10_000


async def test_of_two_that_contradict_the_older_holds(tmp_path: Path) -> None:
    async with world(tmp_path, "east", "west", resolver=True) as made:
        await serving(made, "east", "west")
        await made["east"].apply(drain("d", "east"))
        await pass_time(1)
        await made["west"].apply(drain("d", "west"))
        await pass_time(20)
        assert told(await status(made, "east"), "Drained") == "True, Drained"
        waiting = await status(made, "west")
        assert told(waiting) == "False, Refused"
        condition = waiting.condition("Accepted")
        assert condition is not None
        assert condition.message == (
            "draining west would leave no healthy cluster for app/user (east is drained). "
            "Use force: true to drain all the same"
        )
        # It waits: when the older one goes, it starts by itself.
        await made["east"].delete(key("d"))
        await pass_time(20)
        assert told(await status(made, "west"), "Drained") == "True, Drained"


async def test_two_at_the_same_moment_are_never_both(tmp_path: Path) -> None:
    async with world(tmp_path, "east", "west") as made:
        await serving(made, "east", "west")
        for cluster in ("east", "west"):
            await made[cluster].apply(drain("d", cluster))
        await pass_time(1)
        made.start_resolver()
        await pass_time(20)
        states = made.view.drain_states
        assert [name for name in sorted(states) if states[name].refusal is None] == ["east:d"]


async def test_force_drains_what_nobody_can_carry(tmp_path: Path) -> None:
    async with world(tmp_path, "west", resolver=True) as made:
        await serving(made, "west")
        await made["west"].apply(drain("d", "west"))
        await pass_time(1)
        assert told(await status(made, "west")) == "False, Refused"
        await made["west"].apply(drain("d", "west", force="true"))
        await pass_time(1)
        assert told(await status(made, "west")) == "True, Accepted"


async def test_an_expired_one_rests_until_it_is_changed(tmp_path: Path) -> None:
    async with world(tmp_path, "east", "west", resolver=True) as made:
        await serving(made, "east", "west")
        await made["west"].apply(drain("d", "west", expires="20s"))
        await pass_time(1)
        begun = await status(made, "west")
        assert begun.drain is not None
        assert begun.drain.expires_at_ms == (begun.drain.started_at_ms or 0) + 20_000
        await pass_time(30)
        ended = await status(made, "west")
        assert ended.drain is not None
        assert (ended.drain.phase, ended.drain.percent_moved) == ("Expired", 0)
        await pass_time(60)
        assert made.view.drain_states["west:d"].idle
        await made["west"].apply(drain("d", "west", expires="1h"))
        await pass_time(1)
        assert told(await status(made, "west"), "Drained") == "False, Ramping"


async def test_another_target_takes_the_old_one_back_first(tmp_path: Path) -> None:
    async with world(tmp_path, "east", "west") as made:
        made.start_resolver(DrainRight("west", "*"))
        await serving(made, "east", "west")
        await made["west"].apply(drain("d", "west"))
        await pass_time(11)
        await made["west"].apply(drain("d", "east"))
        await pass_time(2)
        state = made.view.drain_states["west:d"]
        assert (state.spec.target, state.returning) == ("west", True)
        await pass_time(20)
        assert made.view.drain_states["west:d"].spec.target == "east"
        assert told(await status(made, "west"), "Drained") == "True, Drained"


async def test_a_restart_and_a_source_that_lost_everything_undo_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, "east", "west", resolver=True) as made:
        await serving(made, "east", "west")
        await made["west"].apply(drain("d", "west"))
        await pass_time(20)
        await made["west"].crash()
        await pass_time(30)
        assert "west:d" in made.view.drains, "a silent agent undoes nothing"
        stored = made.shared.listing(KEYS.objects(ClusterId("west"))).entries
        for entry in stored:
            await made.onlooker.commit([Delete(entry.key)])
        made["west"].start()
        await pass_time(10)
        assert "west:d" in made.view.drains, "a source that came back empty undoes nothing"
        for entry in stored:
            await made.onlooker.commit([Put(entry.key, entry.value)])
        await pass_time(5)
        await made["west"].delete(key("d"))
        await pass_time(1)
        assert "west:d" not in made.view.drains


async def test_one_deleted_while_the_agent_was_down_is_undone(tmp_path: Path) -> None:
    async with world(tmp_path, "east", "west", resolver=True) as made:
        await serving(made, "east", "west")
        await made["west"].apply(drain("d", "west"))
        await pass_time(20)
        await made["west"].crash()
        await made["west"].delete(key("d"))
        made["west"].start()
        await until(lambda: "west:d" not in made.view.drains, "the drain to be undone")


async def test_too_many_objects_leave_the_oldest(tmp_path: Path) -> None:
    async with world(tmp_path, "east", "west", resolver=True) as made:
        for number in range(REQUESTS_MAX):
            await made["west"].apply(drain(f"z-{number}", "nowhere"))
        await made["west"].apply(drain("a", "west"))
        await until(lambda: len(made.view.drains) == REQUESTS_MAX, "the drains")
        await pass_time(1)
        assert told(await status(made, "west", "a")) == "False, TooMany"
        assert told(await status(made, "west", "z-0")) == "False, UnknownTarget"


async def test_a_cluster_cannot_speak_for_another(tmp_path: Path) -> None:
    async with world(tmp_path, "east", "west", resolver=True) as made:
        await serving(made, "east", "west")
        await made["west"].crash()  # it would tidy up below its own prefix
        forged = Drain(
            name="east:d",
            target_kind=DrainTargetKind.CLUSTER,
            target="east",
            cluster=ClusterId("east"),
        )
        operators = forged.model_copy(update={"name": "east", "cluster": None})
        for number, value in enumerate((forged, operators)):
            place = KEYS.requested_drain(ClusterId("west"), f"d{number}")
            await made.onlooker.commit([Put(place, to_bytes(value))])
        await pass_time(2)
        assert len(made.reading().problems) == 2
        assert not made.view.drains
        assert not made.view.drain_states
