"""The federation's view for commands that look once.

Decides: what is read in one go, and that values which cannot be read are complained about.
Leaves to others: reading values (``wire.etcd``), what the view means (``derive``).
Invariants: everything shown comes from one store revision, except who leads, read right after it.
"""

from __future__ import annotations

from dataclasses import dataclass

from federation.cli.context import CommandError, complain
from federation.cli.exit_codes import ExitCode
from federation.derive.explain_status import LeaderStatus
from federation.model.base import ServiceName
from federation.model.view import FederationView
from federation.ports import Store
from federation.wire.etcd import view_from
from federation.wire.etcd_keys import Keys


@dataclass(frozen=True, slots=True)
class Read:
    """A view and the resolver that leads, if one does."""

    view: FederationView
    leader: LeaderStatus | None


async def read_view(store: Store, keys: Keys) -> Read:
    """The view now. Raises ``StoreUnavailable``."""
    listing = await store.list(keys.state)
    reading = view_from(keys, listing.revision, listing.entries)
    for problem in reading.problems:
        complain(f"warning: {problem}")
    return Read(reading.view, await _leader(store, keys))


async def _leader(store: Store, keys: Keys) -> LeaderStatus | None:
    """The oldest candidacy leads; its key was created at the term."""
    candidacies = (await store.list(f"{keys.resolver_election}/")).entries
    if not candidacies:
        return None
    first = min(candidacies, key=lambda entry: entry.create_revision)
    return LeaderStatus(resolver=first.value.decode(), term=first.create_revision)


def parse_service(text: str) -> ServiceName:
    """``NAMESPACE/NAME`` as a service's name."""
    namespace, slash, name = text.partition("/")
    if not (slash and namespace and name) or "/" in name:
        raise CommandError(f'"{text}" is not a service; write NAMESPACE/NAME', ExitCode.USAGE)
    return ServiceName(namespace=namespace, name=name)
