"""Draining and taking a drain back, as an operator asks for it.

Decides: what a request for a drain means, when it is refused, what is written.
Leaves to others: the judgement (``derive.drain_admission``), the ramp (the leading resolver), how
people ask and are answered (``cli``, ``console``).
Invariants: a refused drain leaves nothing behind, also when two operators drain at the same moment;
judging writes nothing and ends as the real thing would.
"""

from __future__ import annotations

from dataclasses import dataclass

from federation.derive.drain import drain_name
from federation.derive.drain_admission import Admitted, Refused, admit, target_kind
from federation.model.base import ServiceName
from federation.model.drain import Drain, drain_object_name
from federation.model.duration import parse_duration
from federation.model.view import FederationView
from federation.operations.refusal import OperationError, Why
from federation.operations.view import Read, parse_service, read_view
from federation.ports import Delete, Put, Store
from federation.wire.etcd import to_bytes
from federation.wire.etcd_keys import Keys


@dataclass(frozen=True, slots=True)
class DrainRequest:
    """What an operator typed; times as ``30s``, ``service`` as ``NAMESPACE/NAME``."""

    target: str
    service: str | None = None
    over: str = "30s"
    grace: str = "30s"
    expires: str | None = None
    force: bool = False
    requested_by: str = ""

    def drain(self, view: FederationView) -> Drain:
        """The drain asked for. Raises ``OperationError`` if it makes no sense."""
        kind = target_kind(view, self.target)
        if kind is None:
            raise OperationError(
                f"no region or cluster is named {self.target}; known names: {_known(view)}",
                Why.NOT_FOUND,
            )
        service = optional_service(self.service)
        if service is not None and service not in view.exports:
            raise OperationError(f"no cluster exports {service}", Why.NOT_FOUND)
        try:
            return Drain(
                name=drain_name(self.target, service),
                target_kind=kind,
                target=self.target,
                service=service,
                over_ms=parse_duration(self.over),
                grace_ms=parse_duration(self.grace),
                expires_ms=None if self.expires is None else parse_duration(self.expires),
                forced=self.force,
                requested_by=self.requested_by,
            )
        except ValueError as error:
            raise OperationError(f"--over, --grace or --expires: {error}", Why.USAGE) from error


@dataclass(frozen=True, slots=True)
class Judged:
    """A drain that may start, what it does, and the view by which it was judged."""

    drain: Drain
    verdict: Admitted
    read: Read


async def judge(store: Store, keys: Keys, request: DrainRequest) -> Judged:
    """What the drain would do. Raises ``OperationError`` when it may not start."""
    read = await read_view(store, keys)
    asked = request.drain(read.view)
    return Judged(asked, _admitted(asked, read.view), read)


async def start(store: Store, keys: Keys, judged: Judged) -> None:
    """Ask for the drain. Raises ``OperationError`` if another that came meanwhile forbids it."""
    key = keys.drain(judged.drain.name)
    await store.commit([Put(key, to_bytes(judged.drain))])
    verdict = admit(judged.drain, (await read_view(store, keys)).view)
    if isinstance(verdict, Admitted):
        return
    earlier = judged.read.view.drains.get(judged.drain.name)
    await store.commit([Delete(key) if earlier is None else Put(key, to_bytes(earlier))])
    raise OperationError(
        f"another drain came first: {verdict.reason}", Why.REFUSED, verdict.impacts
    )


@dataclass(frozen=True, slots=True)
class Undone:
    """A drain that was taken back, and the view before that."""

    drain: Drain
    read: Read


async def undo(store: Store, keys: Keys, name: str, *, described: str) -> Undone:
    """Take the operator's drain ``name`` back. Raises ``OperationError`` when there is none.

    ``described`` is how the operator named it: ``us-east-1``, or ``us-east-1 for app/x``.
    """
    read = await read_view(store, keys)
    drain = read.view.drains.get(name)
    if drain is None:
        raise OperationError(
            f"{described} is not drained; drains: {_drains(read.view)}", Why.NOT_FOUND
        )
    if (refusal := not_ours(drain)) is not None:
        raise OperationError(refusal, Why.REFUSED)
    await store.commit([Delete(keys.drain(name))])
    return Undone(drain, read)


def not_ours(drain: Drain) -> str | None:
    """Why an operator cannot take ``drain`` back: an object would only ask for it again."""
    if drain.cluster is None:
        return None
    name = drain_object_name(drain)
    return (
        f"{named(drain)} is drained by an object: {drain.requested_by}; delete it there: "
        f"kubectl delete drain {name} (or fedctl delete drain {name} --cluster {drain.cluster})"
    )


def of_an_object(view: FederationView, target: str, service: ServiceName | None) -> Drain | None:
    """The drain of an object that speaks of ``target`` and ``service``."""
    found = (
        drain
        for drain in view.drains.values()
        if drain.cluster is not None and (drain.target, drain.service) == (target, service)
    )
    return next(found, None)


def named(drain: Drain) -> str:
    """The drain as people say it."""
    return drain.target if drain.service is None else f"{drain.service} in {drain.target}"


def optional_service(text: str | None) -> ServiceName | None:
    """A service's name, if there is one. Raises ``OperationError``."""
    return None if text is None else parse_service(text)


def _admitted(asked: Drain, view: FederationView) -> Admitted:
    verdict = admit(asked, view)
    if isinstance(verdict, Refused):
        raise OperationError(verdict.reason, Why.REFUSED, verdict.impacts)
    return verdict


def _drains(view: FederationView) -> str:
    return ", ".join(map(named, view.drains.values())) or "none"


def _known(view: FederationView) -> str:
    names = {*view.members, *(member.region for member in view.members.values())}
    return ", ".join(sorted(names)) or "none"
