"""Agents on a store in memory, in virtual time: what they publish, keep, doubt and survive."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from federation.agent import NameTakenError, StateDirError
from federation.derive.exports import derive_facts
from federation.model.base import ServiceName
from federation.model.conditions import ConditionStatus
from federation.model.facts import AcceptedShrink
from federation.model.objects import Gateway, McsServiceExport, ObjectKey, ObjectSnapshot
from federation.ports import Delete, Put
from federation.wire.etcd import to_bytes
from tests.simulation.world import (
    KEYS,
    Member,
    World,
    entry_point,
    pass_time,
    service,
    until,
    world,
)

VIRTUAL_TIME = True

USER = ServiceName(namespace="app", name="user")
EXPORT_GROUP = McsServiceExport.GROUP


def ready_of(made: World, name: str) -> int | None:
    fact = made.view.exports.get(USER, {}).get(made[name].cluster)
    return fact.ready if fact is not None else None


async def test_a_change_in_one_cluster_reaches_the_other_within_the_budget(tmp_path: Path) -> None:
    async with world(tmp_path, "east", "west", resolver=True) as made:
        await made["west"].apply(entry_point("user"))
        await made["east"].apply(service("user", ready=0))
        await until(lambda: USER in made.view.resolved, "a resolution")
        west = made["west"].gateways
        await pass_time(5)
        before = len(west.snapshots)
        await made["east"].apply(service("user", ready=2))
        took = await until(lambda: len(west.snapshots) > before, "west's snapshot")
        assert took < 0.05


async def test_facts_are_sealed_and_gateways_advertised(tmp_path: Path) -> None:
    async with world(tmp_path, "west") as made:
        await made["west"].apply(service("user", ready=3))
        await until(lambda: ready_of(made, "west") == 3, "the export")
        assert made.reading().problems == ()
        assert made.view.manifests[made["west"].cluster].count == 1
        advertised = made.view.gateways[made["west"].cluster].gateways
        assert [peer.address for peer in advertised] == [
            "west-gw-1.example:15444",
            "west-gw-2.example:15444",
        ]


async def test_many_exports_take_several_commits_and_every_seal_fits(tmp_path: Path) -> None:
    async with world(tmp_path, "west") as made:
        await made["west"].stop()
        for number in range(150):
            await made["west"].apply(service(f"s{number}", ready=1))
        made["west"].start()
        await until(lambda: len(made.view.exports) == 150, "all exports")
        assert made.reading().problems == ()


async def test_vanished_gateways_stay_advertised_until_an_operator_says_so(tmp_path: Path) -> None:
    async with world(tmp_path, "west") as made:
        west = made["west"]

        def advertised() -> list[str]:
            found = made.view.gateways.get(west.cluster)
            return [peer.name for peer in found.gateways] if found is not None else []

        await until(lambda: advertised() == ["west-gw-1", "west-gw-2"], "both gateways")
        west.gateways.connect()
        await pass_time(10)
        assert advertised() == ["west-gw-1", "west-gw-2"]
        west.gateways.connect("west-gw-2", "west-gw-3")
        await until(lambda: advertised() == ["west-gw-1", "west-gw-2", "west-gw-3"], "the new one")
        await made.onlooker.commit([Delete(KEYS.gateways(west.cluster))])
        await until(lambda: advertised() == ["west-gw-2", "west-gw-3"], "the connected ones")


async def test_a_dead_agent_is_stale_and_moves_nothing(tmp_path: Path) -> None:
    async with world(tmp_path, "east", "west", resolver=True) as made:
        await made["west"].apply(entry_point("user"))
        for name in ("east", "west"):
            await made[name].apply(service("user", ready=2))
        await until(lambda: len(made.view.exports.get(USER, {})) == 2, "both exports")
        await pass_time(5)
        resolved = made.view.resolved
        published = len(made["west"].gateways.snapshots)
        await made["east"].crash()
        await until(lambda: "east" not in made.view.heartbeats, "the end of the heartbeat")
        await pass_time(60)
        assert ready_of(made, "east") == 2
        assert made.view.resolved == resolved
        assert len(made["west"].gateways.snapshots) == published


async def test_a_stopped_agent_shows_at_once(tmp_path: Path) -> None:
    async with world(tmp_path, "west") as made:
        await until(lambda: "west" in made.view.heartbeats, "the heartbeat")
        await made["west"].stop()
        assert "west" not in made.view.heartbeats
        assert "west" in made.view.members


async def empty_while_down(made: World, member: Member) -> None:
    """What a wrong context or a lost volume looks like: the agent starts on nothing."""
    await member.crash()
    listing = await made.onlooker.list(KEYS.objects(member.cluster))
    await made.onlooker.commit([Delete(entry.key) for entry in listing.entries])
    member.start()


async def test_starting_on_an_empty_source_is_quarantined_and_lifted(tmp_path: Path) -> None:
    async with world(tmp_path, "west") as made:
        west = made["west"]
        await west.apply(entry_point("user"))
        await west.apply(service("user", ready=2) + "---" + service("order", ready=1))
        await until(lambda: len(made.view.exports) == 2, "the exports")
        await pass_time(5)
        last = west.gateways.snapshots[-1]
        assert last.listeners
        await empty_while_down(made, west)

        def missing() -> list[str]:
            doubt = made.view.manifests[west.cluster].quarantine
            return [str(name) for name in doubt.missing] if doubt is not None else []

        await until(lambda: missing() == ["app/order", "app/user"], "the quarantine")
        await pass_time(30)
        assert west.gateways.snapshots == [last], "gateways go on with what they had"
        assert ready_of(made, "west") == 2
        assert made.reading().problems == ()
        await west.apply(service("user", ready=2) + "---" + service("order", ready=1))
        await until(lambda: missing() == [], "the end of the quarantine")


async def test_an_operators_word_ends_a_quarantine_once(tmp_path: Path) -> None:
    async with world(tmp_path, "west") as made:
        west = made["west"]
        await west.apply(entry_point("user"))
        await west.apply(service("user", ready=2) + "---" + service("order", ready=1))
        await until(lambda: len(made.view.exports) == 2, "the exports")
        await pass_time(5)
        await empty_while_down(made, west)

        def quarantined() -> bool:
            return made.view.manifests[west.cluster].quarantine is not None

        def entrances() -> list[str]:
            listeners = west.gateways.snapshots[-1].listeners
            return [found.name for found in listeners if found.name.startswith("app/front/")]

        await until(quarantined, "the quarantine")
        assert entrances()
        word = AcceptedShrink(cluster=west.cluster, missing=(USER,))
        await made.onlooker.commit([Put(KEYS.accepted_shrink(west.cluster), to_bytes(word))])
        await until(lambda: ready_of(made, "west") is None, "the end of what was accepted")
        assert quarantined(), "what was not named stays"
        assert not made.view.accepted_shrinks, "the word holds once"
        await until(lambda: not entrances(), "routing by the source")
        assert made.reading().problems == ()


async def test_a_deletion_that_was_seen_is_believed(tmp_path: Path) -> None:
    async with world(tmp_path, "west") as made:
        west = made["west"]
        await west.apply(service("user", ready=2))
        await until(lambda: ready_of(made, "west") == 2, "the export")
        await west.delete(ObjectKey(EXPORT_GROUP, "ServiceExport", "app", "user"))
        await until(lambda: ready_of(made, "west") is None, "the export's end")
        assert made.view.manifests[west.cluster].quarantine is None


async def test_an_agent_started_without_the_store_serves_what_it_knew(tmp_path: Path) -> None:
    async with world(tmp_path, "west") as made:
        west = made["west"]
        await west.apply(entry_point("user") + "---" + service("user", ready=2))
        await until(lambda: ready_of(made, "west") == 2, "the export")
        await pass_time(10)
        last = west.gateways.snapshots[-1]
        await west.crash()
        west.start(connected=False)
        took = await until(lambda: west.gateways.snapshots != [], "the last good state")
        assert 2 <= took < 3
        assert west.gateways.snapshots == [last]
        west.store.mend()
        await west.apply(service("user", ready=4))
        await until(lambda: ready_of(made, "west") == 4, "going on live")


async def test_nothing_known_is_nothing_served(tmp_path: Path) -> None:
    async with world(tmp_path, "west") as made:
        await made["west"].crash()
        made["west"].state_dir = tmp_path / "other"
        made["west"].start(connected=False)
        await pass_time(30)
        assert made["west"].gateways.snapshots == []


async def test_the_store_may_go_and_come(tmp_path: Path) -> None:
    async with world(tmp_path, "west") as made:
        west = made["west"]
        await west.apply(service("user", ready=2))
        await until(lambda: ready_of(made, "west") == 2, "the export")
        west.store.cut()
        await west.apply(service("user", ready=3))
        await pass_time(60)
        assert ready_of(made, "west") == 2
        assert "west" not in made.view.heartbeats
        west.store.mend()
        took = await until(lambda: ready_of(made, "west") == 3, "convergence")
        took += await until(lambda: "west" in made.view.heartbeats, "the heartbeat")
        assert took < 2


async def test_a_second_agent_of_the_same_name_is_refused(tmp_path: Path) -> None:
    async with world(tmp_path, "west") as made:
        stranger = Member("west", made.shared, tmp_path / "stranger")
        owner = made.view.members[made["west"].cluster].instance
        with pytest.raises(NameTakenError) as refused:
            await stranger.start()
        assert f'cluster "west" has joined already: agent instance {owner}' in str(refused.value)
        assert "it is alive" in str(refused.value)
        assert stranger.gateways.snapshots == []


async def test_a_claim_that_was_removed_is_taken_again(tmp_path: Path) -> None:
    async with world(tmp_path, "west") as made:
        west = made["west"]
        await pass_time(5)
        await made.onlooker.commit([Delete(KEYS.member(west.cluster))])
        await until(lambda: west.cluster in made.view.members, "the new claim")
        await west.apply(service("user", ready=1))
        took = await until(lambda: ready_of(made, "west") == 1, "the export")
        assert took < 1


async def test_a_name_that_was_given_away_ends_the_agent(tmp_path: Path) -> None:
    async with world(tmp_path, "west") as made:
        west = made["west"]
        assert west.task is not None
        key = KEYS.member(west.cluster)
        other = made.view.members[west.cluster].model_copy(update={"instance": "successor"})
        await made.onlooker.commit([Delete(key)])
        await made.onlooker.commit([Put(key, to_bytes(other))])
        with pytest.raises(NameTakenError, match="agent instance successor"):
            await west.task
        west.task = None


async def test_a_state_directory_serves_one_agent(tmp_path: Path) -> None:
    async with world(tmp_path, "west") as made:
        second = Member("west", made.shared, tmp_path)
        with pytest.raises(StateDirError, match="in use by another agent"):
            await second.start()


async def test_a_bad_stored_value_is_skipped(tmp_path: Path) -> None:
    async with world(tmp_path, "west") as made:
        await made.onlooker.commit(
            [Put(f"{KEYS.state}drains/bad", b"{}"), Put(f"{KEYS.state}x", b"")]
        )
        await made["west"].apply(service("user", ready=1) + "---" + entry_point("user"))
        await until(lambda: ready_of(made, "west") == 1, "the export")
        assert [problem.key for problem in made.reading().problems] == [
            f"{KEYS.state}drains/bad",
            f"{KEYS.state}x",
        ]


async def test_programmed_follows_the_gateways(tmp_path: Path) -> None:
    async with world(tmp_path, "west") as made:
        west = made["west"]
        west.gateways.connect()
        await west.apply(entry_point("user"))
        key = ObjectKey("gateway.networking.k8s.io", "Gateway", "app", "front")

        async def programmed() -> ConditionStatus | None:
            status = (await west.statuses()).get(key)
            found = status.condition("Programmed") if status is not None else None
            return found.status if found is not None else None

        await pass_time(1)
        assert await programmed() is ConditionStatus.FALSE
        west.gateways.connect("west-gw-1")
        await pass_time(1)
        assert await programmed() is ConditionStatus.TRUE


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_happens_facts_converge_to_the_objects(tmp_path: Path, seed: int) -> None:
    """Random changes, cuts and crashes; afterwards the store says what the objects say."""
    dice = random.Random(seed)
    async with world(tmp_path, "east", "west") as made:
        for _ in range(60):
            member = made[dice.choice(["east", "west"])]
            match dice.randrange(6):
                case 0 | 1 | 2:
                    name = dice.choice(["user", "order", "cart"])
                    await member.apply(service(name, ready=dice.randrange(4)))
                case 3:
                    member.store.cut()
                case 4:
                    member.store.mend()
                case 5:
                    await member.crash()
                    member.start()
            await pass_time(dice.choice([0.0, 0.001, 0.1, 3.0]))
        for member in made.members.values():
            member.store.mend()
        await pass_time(20)
        assert made.reading().problems == (), f"seed {seed}"
        for member in made.members.values():
            found = {value.key: value for value in await member.users.list()}
            facts = derive_facts(
                cluster=member.cluster, region=member.region, objects=ObjectSnapshot(found)
            )
            stored = {
                name: of[member.cluster].model_copy(update={"create_revision": 0})
                for name, of in made.view.exports.items()
                if member.cluster in of
            }
            assert stored == facts.exports, f"seed {seed}"
            assert member.cluster in made.view.heartbeats, f"seed {seed}"


async def test_programmed_does_not_flap_while_gateways_come_back_to_a_new_agent(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, "west") as made:
        west = made["west"]
        await west.apply(service("user", ready=1) + "---" + entry_point("user"))
        assert await programmed(west) is ConditionStatus.TRUE
        await west.stop()
        west.gateways.connect()
        west.start()
        await pass_time(1.5)
        assert await programmed(west) is ConditionStatus.TRUE
        west.gateways.connect("west-gw-1", "west-gw-2")
        await pass_time(5)
        assert await programmed(west) is ConditionStatus.TRUE
        # Gateways that do not come back show.
        await west.stop()
        west.gateways.connect()
        west.start()
        async with asyncio.timeout(30):
            while await programmed(west) is ConditionStatus.TRUE:
                await pass_time(0.1)


async def programmed(member: Member) -> ConditionStatus:
    """What the stored status of the Gateway says, once there is one."""
    key = ObjectKey(Gateway.GROUP, Gateway.KIND, "app", "front")
    async with asyncio.timeout(30):
        while (status := (await member.statuses()).get(key)) is None or status.condition(
            "Programmed"
        ) is None:
            await pass_time(0.01)
    found = status.condition("Programmed")
    assert found is not None
    return found.status


async def test_an_agent_that_hears_nothing_any_more_does_not_say_it_is_well(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with world(tmp_path, "east", "west") as made:
        west = made["west"]
        await until(lambda: "west" in made.view.heartbeats, "the first heartbeat")
        west.store.deafen()
        await until(lambda: "west" not in made.view.heartbeats, "the end of the heartbeat")
        assert "heartbeat is deaf" in caplog.text
        await pass_time(30)
        assert "west" not in made.view.heartbeats
        west.store.undeafen()
        await until(lambda: "west" in made.view.heartbeats, "the heartbeat", within_s=5)
        # A store that was away for long is no deafness.
        caplog.clear()
        west.store.cut()
        await pass_time(60)
        west.store.mend()
        await until(lambda: "west" in made.view.heartbeats, "the heartbeat", within_s=5)
        assert "heartbeat is deaf" not in caplog.text
