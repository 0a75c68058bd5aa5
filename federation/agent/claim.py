"""The claim of a cluster's name: one instance owns it, a stranger is refused.

Decides: when a name is ours: nobody has it, or the entry carries our identity (kept in the state
directory, so a restarted agent finds itself).
Leaves to others: liveness (the heartbeat); a silent owner still owns its name, since silence moves
nothing.
Invariants: the first writer wins, by the store; everything else the agent writes is guarded by the
claim's create_revision, so an agent whose claim was removed or taken writes nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass

from federation.model.facts import Member
from federation.ports import (
    Absent,
    CreatedAt,
    Entry,
    Guard,
    Put,
    Store,
    StoreUnavailable,
    Unchanged,
)
from federation.wire.etcd import from_bytes, to_bytes
from federation.wire.etcd_keys import Keys

ATTEMPTS_MAX = 4
"""Reads and guarded writes against others who claim at the same moment."""


class NameTakenError(Exception):
    """Another instance owns the cluster's name."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A held claim; ``guard`` goes with every write."""

    member: Member
    guard: Guard


async def claim(store: Store, keys: Keys, member: Member) -> Claim:
    """Claim the name, or find it ours. Raises ``NameTakenError`` and ``StoreUnavailable``."""
    key = keys.member(member.cluster)
    for _ in range(ATTEMPTS_MAX):
        entry = await store.get(key)
        if entry is None:
            revision = await store.commit([Put(key, to_bytes(member))], guards=[Absent(key)])
            if revision is not None:
                return Claim(member, CreatedAt(key, revision))
            continue
        owner = read_owner(entry, member)
        if owner.instance != member.instance:
            raise NameTakenError(await _refusal(store, keys, owner, member, key))
        guard = CreatedAt(key, entry.create_revision)
        if owner == member:
            return Claim(member, guard)
        # Ours from before, under another region.
        unchanged = Unchanged(key, entry.mod_revision)
        if await store.commit([Put(key, to_bytes(member))], guards=[unchanged]) is not None:
            return Claim(member, guard)
    raise StoreUnavailable(f"claiming {key}: others keep changing it")


def read_owner(entry: Entry, member: Member) -> Member:
    """Who owns the name; an unreadable entry is nobody we know, so it is not ours."""
    try:
        return from_bytes(Member, entry.value)
    except ValueError:
        return Member(cluster=member.cluster, region=member.region, instance="unreadable")


async def _refusal(store: Store, keys: Keys, owner: Member, member: Member, key: str) -> str:
    alive = await store.get(keys.heartbeat(member.cluster)) is not None
    return (
        f'cluster "{member.cluster}" has joined already: agent instance {owner.instance} in region '
        f"{owner.region} owns the name ({'it is alive' if alive else 'it is silent now'}); this is "
        f"instance {member.instance}. Give this cluster another name, or start the agent with the "
        f"state directory of that instance; to give the name up for good, delete {key}"
    )
