"""The claim of a cluster's name: one instance owns it, a stranger is refused.

Decides: when a name is ours: nobody has it, or the entry carries our identity (kept in the state
directory, so a restarted agent finds itself). Of several agents of a cluster, which share the
identity, it is the one that leads: it writes its term into the entry when the term begins.
Leaves to others: liveness (the heartbeat); a silent owner still owns its name, since silence moves
nothing.
Invariants: the first writer wins, by the store; everything else the agent writes is guarded by the
claim (its create_revision, or with a term the entry as it was written), so an agent whose claim was
removed or taken, or that leads no more, writes nothing more, however late it notices.
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


class OvertakenError(Exception):
    """Another agent of the same cluster leads by now."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A held claim; ``guard`` goes with every write."""

    member: Member
    guard: Guard


async def claim(store: Store, keys: Keys, member: Member, *, overtake: bool = True) -> Claim:
    """Claim the name, or find it ours.

    ``overtake`` another agent of the cluster, as at the beginning of a term; without it that raises
    ``OvertakenError``. Raises ``NameTakenError`` and ``StoreUnavailable``.
    """
    key = keys.member(member.cluster)
    for _ in range(ATTEMPTS_MAX):
        entry = await store.get(key)
        if entry is None:
            revision = await store.commit([Put(key, to_bytes(member))], guards=[Absent(key)])
            if revision is not None:
                return Claim(member, _guard(key, member, created=revision, modified=revision))
            continue
        owner = read_owner(entry, member)
        if owner.instance != member.instance:
            raise NameTakenError(await _refusal(store, keys, owner, member, key))
        created, modified = entry.create_revision, entry.mod_revision
        if owner == member:
            return Claim(member, _guard(key, member, created=created, modified=modified))
        if owner.leader != member.leader and not overtake:
            raise OvertakenError(f"{key}: agent {owner.leader or 'without a lease'} leads now")
        # Ours from before, under another region or led by another agent.
        revision = await store.commit(
            [Put(key, to_bytes(member))], guards=[Unchanged(key, modified)]
        )
        if revision is not None:
            return Claim(member, _guard(key, member, created=created, modified=revision))
    raise StoreUnavailable(f"claiming {key}: others keep changing it")


def _guard(key: str, member: Member, *, created: int, modified: int) -> Guard:
    return Unchanged(key, modified) if member.leader else CreatedAt(key, created)


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
