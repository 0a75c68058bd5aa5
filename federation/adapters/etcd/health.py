"""How etcd's members are: versions, leader, space, alarms, authentication, history kept.

Decides: which questions tell it; each answers or is told as unanswered, and stops no other.
Leaves to others: what is bad about it (``cli.check``).
Invariants: reads only; each question ends within the settings' ``call_timeout_s``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from aetcd import rpc

from federation.adapters.etcd.connection import Connection, EtcdSettings, Message
from federation.ports import PortError, StoreRefused

HISTORY_KEPT = 100_000
"""Revisions: who can read as far back compacts never, or too seldom."""


@dataclass(frozen=True, slots=True)
class EtcdMember:
    """One member as asked at ``endpoint``; ``why`` is empty where it answered."""

    endpoint: str
    why: str = ""
    version: str = ""
    member: int = 0
    leader: int = 0
    size_bytes: int = 0
    used_bytes: int = 0
    learner: bool = False
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EtcdHealth:
    """All members that are known. ``voters`` counts those that make the quorum.

    ``authentication`` and ``long_history`` are ``None`` where etcd would not say. ``roles_missing``
    are those asked for that are not there; ``rights_unread`` says why they could not be looked up.
    """

    members: tuple[EtcdMember, ...] = ()
    voters: int = 0
    alarms: tuple[str, ...] = ()
    authentication: bool | None = None
    long_history: bool | None = None
    roles_missing: tuple[str, ...] = ()
    rights_unread: str = ""


async def health(
    settings: EtcdSettings, *, roles: Iterable[str] = (), key: str = "\0"
) -> EtcdHealth:
    """Ask every member that is known; ``roles`` are looked up where authentication is on.

    ``key`` is one that we may read, present or not.

    Raises ``PortError`` when the endpoints cannot be asked at all.
    """
    connection = Connection(settings)
    try:
        known = await _answer(connection, rpc.ClusterStub, "MemberList", rpc.MemberListRequest())
        voters = sum(not member.isLearner for member in known.members)
        advertised = {url for member in known.members for url in member.clientURLs}
        found = EtcdHealth(
            members=tuple([await _member(settings, url) for url in sorted(advertised)]),
            voters=voters,
            alarms=await _alarms(connection),
            long_history=await _long_history(connection, key.encode()),
        )
        return await _with_rights(connection, found, roles)
    finally:
        await connection.close()


async def _member(settings: EtcdSettings, endpoint: str) -> EtcdMember:
    try:
        connection = Connection(replace(settings, endpoints=(endpoint,)))
    except PortError as error:
        return EtcdMember(endpoint, why=str(error))
    try:
        said = await _answer(connection, rpc.MaintenanceStub, "Status", rpc.StatusRequest())
    except PortError as error:
        return EtcdMember(endpoint, why=str(error))
    finally:
        await connection.close()
    return EtcdMember(
        endpoint,
        version=said.version,
        member=said.header.member_id,
        leader=said.leader,
        size_bytes=said.dbSize,
        used_bytes=said.dbSizeInUse,
        learner=said.isLearner,
        errors=tuple(said.errors),
    )


async def _alarms(connection: Connection) -> tuple[str, ...]:
    try:
        said = await _answer(connection, rpc.MaintenanceStub, "Alarm", rpc.AlarmRequest())
    except StoreRefused:
        return ()
    return tuple(sorted({rpc.AlarmType.Name(alarm.alarm) for alarm in said.alarms}))


async def _with_rights(
    connection: Connection, found: EtcdHealth, roles: Iterable[str]
) -> EtcdHealth:
    try:
        said = await _answer(connection, rpc.AuthStub, "AuthStatus", rpc.AuthStatusRequest())
    except StoreRefused as error:
        if "permission denied" in str(error):  # so there are rights
            return replace(found, authentication=True, rights_unread=str(error))
        return found  # etcd 3.4 has no such call
    found = replace(found, authentication=bool(said.enabled))
    return await _with_roles(connection, found, roles) if said.enabled else found


async def _long_history(connection: Connection, key: bytes) -> bool | None:
    """Whether a revision ``HISTORY_KEPT`` back can still be read."""
    try:
        now = await connection.call(rpc.RangeRequest(key=key, count_only=True), "reading")
        before = now.header.revision - HISTORY_KEPT
        if before < 1:
            return False
        asked = rpc.RangeRequest(key=key, count_only=True, revision=before)
        await connection.call(asked, f"reading at revision {before}")
    except StoreRefused as error:
        return False if "compacted" in str(error) else None
    except PortError as error:
        return False if "compacted" in str(error) else None
    return True


async def _with_roles(
    connection: Connection, found: EtcdHealth, roles: Iterable[str]
) -> EtcdHealth:
    missing: list[str] = []
    for role in roles:
        try:
            await _answer(connection, rpc.AuthStub, "RoleGet", rpc.AuthRoleGetRequest(role=role))
        except StoreRefused as error:
            if "not found" not in str(error):
                return replace(found, rights_unread=str(error))
            missing.append(role)
    return replace(found, roles_missing=tuple(missing))


async def _answer(connection: Connection, stub: Message, call: str, request: Message) -> Message:
    link = connection.link()
    try:
        asked = getattr(stub(link.channel), call)
        return await asked(request, timeout=connection.settings.call_timeout_s)
    except rpc.AioRpcError as error:
        raise await connection.failure(link, error, f"asking for {call}") from error
