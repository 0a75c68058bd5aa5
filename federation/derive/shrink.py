"""Whether missing exports are believed: empty is not, a deletion is.

Decides: which stored exports are removed. What was seen to be deleted is removed. What is merely
missing (the source no longer has it, and nobody saw it go) is removed too while the source still
shows most of what it published before; a larger loss, or a source with nothing at all, is
quarantined: everything missing stays published and the quarantine is shown.
Leaves to others: seeing deletions (the source), writing and lifting the quarantine (the agent, on
an operator's word: ``fedctl accept-shrink``).
Invariants: an export that the source shows is always published; a quarantine removes nothing but
what was deleted or what an operator accepted; judging the same again gives the same verdict.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from federation.model.base import ClusterId, ServiceName
from federation.model.view import FederationView

BELIEVED_LOSS_PERCENT = 20
"""Part of the stored exports that may be missing without having been seen to go. An agent that was
down while one of ten exports was deleted is right; one that lost more is likelier misconfigured or
only half synced (a wrong context, a missing permission, an API server that answers with less)."""


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish what the source shows and remove ``remove``."""

    remove: tuple[ServiceName, ...]


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Publish what the source shows, remove ``remove``, and keep ``missing`` as it was."""

    remove: tuple[ServiceName, ...]
    missing: tuple[ServiceName, ...]
    reason: str


def judge(
    *,
    stored: Collection[ServiceName],
    desired: Collection[ServiceName],
    deleted: Collection[ServiceName] = (),
) -> Publish | Quarantined:
    """Compare what is published with what the source shows now.

    ``deleted`` are services whose export was seen to be taken back since the agent watches.
    """
    gone = sorted(set(stored) - set(desired), key=str)
    seen_to_go = tuple(name for name in gone if name in deleted)
    missing = tuple(name for name in gone if name not in deleted)
    if not missing or (desired and len(missing) * 100 <= BELIEVED_LOSS_PERCENT * len(stored)):
        return Publish(remove=tuple(gone))
    return Quarantined(
        remove=seen_to_go,
        missing=missing,
        reason=(
            f"{len(missing)} of {len(stored)} published exports are missing from the source "
            "without having been deleted; they stay published. Bring the objects back, or "
            "accept the loss"
        ),
    )


def still_exported_by(
    view: FederationView, service: ServiceName, *, without: ClusterId
) -> tuple[ClusterId, ...]:
    """The clusters that go on exporting ``service`` once ``without`` no longer does."""
    return tuple(cluster for cluster in sorted(view.exports.get(service, {})) if cluster != without)
