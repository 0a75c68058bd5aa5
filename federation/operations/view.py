"""The federation's view, read once.

Decides: what is read in one go, and which resolver leads.
Leaves to others: reading values (``wire.etcd``), what the view means (``derive``), what is said of
values that cannot be read.
Invariants: everything shown comes from one store revision, except who leads, read right after it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from federation.derive.explain_status import LeaderStatus
from federation.model.base import ServiceName
from federation.model.view import FederationView
from federation.operations.refusal import OperationError, Why
from federation.ports import Entry, Store
from federation.wire.etcd import StoredProblem, view_from
from federation.wire.etcd_keys import Keys


@dataclass(frozen=True, slots=True)
class Read:
    """A view, the resolver that leads, if one does, and what could not be read."""

    view: FederationView
    leader: LeaderStatus | None
    problems: tuple[StoredProblem, ...] = ()


async def read_view(store: Store, keys: Keys) -> Read:
    """The view now. Raises ``StoreUnavailable``."""
    listing = await store.list(keys.state)
    reading = view_from(keys, listing.revision, listing.entries)
    candidacies = (await store.list(f"{keys.resolver_election}/")).entries
    return Read(reading.view, leader_of(candidacies), reading.problems)


def leader_of(candidacies: Iterable[Entry]) -> LeaderStatus | None:
    """The oldest candidacy leads; its key was created at the term."""
    first = min(candidacies, key=lambda entry: entry.create_revision, default=None)
    if first is None:
        return None
    return LeaderStatus(resolver=first.value.decode(), term=first.create_revision)


def parse_service(text: str) -> ServiceName:
    """``NAMESPACE/NAME`` as a service's name. Raises ``OperationError``."""
    namespace, slash, name = text.partition("/")
    if not (slash and namespace and name) or "/" in name:
        raise OperationError(f'"{text}" is not a service; write NAMESPACE/NAME', Why.USAGE)
    return ServiceName(namespace=namespace, name=name)
